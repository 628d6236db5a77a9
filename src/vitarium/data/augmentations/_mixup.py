"""Mixup and cutmix for the batches of one or several models at a time, with timm's rules."""

from typing import Literal

import torch
from scipy.special import betaincinv
from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.data._to_device import to_device
from vitarium.data.augmentations._boxes import blend, covered

Mode = Literal["batch", "pair", "elem"]
MIXING_NUMBERS = 4
"""Which of the two, its strength, and the place of cutmix's rectangle."""


def mix_batches(
    images: Tensor, targets: Tensor, numbers: Tensor, *, mixup: float, cutmix: float, mode: Mode
) -> tuple[Tensor, Tensor]:
    """Each batch mixed with itself in reverse, and its targets likewise.

    mixup (Zhang et al. 2018, arXiv 1710.09412) blends all pixels; cutmix (Yun et al. 2019, arXiv
    1905.04899) pastes a rectangle. With both, each has a chance of one half.

    Args:
        images: [k, b, c, h, w], the batches of k models; targets: [k, b, num_classes].
        numbers: float64 [k, b, MIXING_NUMBERS], on the CPU.
        mixup, cutmix: alpha of the Beta distribution of the share; 0: never.
        mode: whether the share is drawn per batch, per pair of images, or per image.
    """
    if (size := images.shape[1]) % 2:
        raise InvalidInput(f"mixup and cutmix need batches of an even size; {size} is odd")
    numbers = _shared(numbers, mode)
    which, strength, centers = numbers[..., 0], numbers[..., 1], numbers[..., 2:]
    cut = which < (0.5 if mixup and cutmix else float(bool(cutmix)))
    share = torch.where(cut, _beta(strength, cutmix or mixup), _beta(strength, mixup or cutmix))
    sides = []  # of the rectangle: its middle is anywhere, and what reaches outside is cut off
    for axis, size in enumerate(images.shape[-2:]):
        length, middle = ((1 - share).sqrt() * size).floor(), (centers[..., axis] * size).floor()
        sides.append(covered(middle - (length / 2).floor(), middle + (length / 2).ceil(), size))
    rows, columns = sides
    pasted = rows.sum(-1) * columns.sum(-1) / (rows.shape[-1] * columns.shape[-1])
    share = torch.where(cut, 1 - pasted, share)
    device = images.device
    of_targets = to_device(share.unsqueeze(-1).to(targets.dtype), device)
    targets = blend(targets, targets.flip(1), of_targets)
    if cut.any():
        rows, columns = to_device(rows & cut.unsqueeze(-1), device), to_device(columns, device)
        hidden = (rows.unsqueeze(-1) & columns.unsqueeze(-2)).unsqueeze(2)
        pixels = torch.where(hidden, images.flip(1), images)
        share = share.masked_fill(cut, 1.0)
    else:
        pixels = images
    if cut.all():
        return pixels, targets
    of_pixels = to_device(share[..., None, None, None].to(images.dtype), device)
    return blend(pixels, images.flip(1), of_pixels), targets


def _shared(numbers: Tensor, mode: Mode) -> Tensor:
    """The numbers by which each image is mixed: the batch's ([k, 1, ...]), its pair's, its own."""
    if mode == "batch":
        return numbers[:, :1]
    if mode == "pair":
        half = numbers[:, : numbers.shape[1] // 2]
        return torch.cat((half, half.flip(1)), dim=1)
    return numbers


def _beta(numbers: Tensor, alpha: float) -> Tensor:
    """Uniform numbers -> draws from Beta(alpha, alpha)."""
    return torch.from_numpy(betaincinv(alpha, alpha, numbers.contiguous().numpy()))
