"""Images as pixels, random numbers per image, signed-gradient ascent, and fooling rates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.core import seeds
from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels [b, c, h, w] -> two numbers per image, [b] each: what the gradient climbs, and what says
which of the tried images is the best one."""
Fill = Literal["circular", "edge", "zero"]


class Perturbing(Config):
    """Settings of measures that change pixels."""

    num_images: PositiveInt = 256
    """Largest number of images of the split to use, stratified by class."""
    batch_size: PositiveInt = 64
    """Images per forward pass; affects memory and speed only."""
    seed: int = 0
    """Random seed; the random numbers of an image depend on this and the image's index only."""


@dataclass(frozen=True)
class PixelBatch:
    """Images as they are before normalization."""

    pixels: Tensor
    """float32 [b, c, h, w] in [0, 1]"""
    labels: Tensor
    """int64 [b]"""
    indices: Sequence[int]
    """Indices of the images among all that are measured."""

    def of(self, which: Tensor) -> "PixelBatch":
        """Some of the images; which: bool [b]."""
        indices = [self.indices[number] for number in which.nonzero()[:, 0].tolist()]
        return PixelBatch(self.pixels[which], self.labels[which], indices)


def pixel_batches(examples: EvalData, batch_size: int) -> Iterator[PixelBatch]:
    """All images once, in order."""
    start = 0
    for batch in examples.batches(batch_size):
        indices = range(start, start + len(batch.labels))
        yield PixelBatch(examples.pixels(batch.images).clamp(0, 1), batch.labels, indices)
        start = indices.stop


def streams(seed: int, name: str, indices: Sequence[int]) -> list[Generator]:
    """A generator (CPU) for each image index, independent of batches."""
    return [Generator().manual_seed(seeds.derive(seed, name, index)) for index in indices]


def drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], generators: Sequence[Generator]
) -> Tensor:
    """`draw(shape, generator=...)`, e.g. torch.rand, for each image: [b, *shape] on the CPU."""
    return torch.stack([draw(tuple(shape), generator=generator) for generator in generators])


def start_noise(epsilon: float, seed: int, batch: PixelBatch) -> Tensor:
    """Where an attack starts: for each pixel even in [-epsilon, epsilon], [b, c, h, w]."""
    generators = streams(seed, "start", batch.indices)
    noise = drawn(torch.rand, batch.pixels.shape[1:], generators).to(batch.pixels)
    return epsilon * (2 * noise - 1)


def shifted(pixels: Tensor, down: Tensor, across: Tensor, fill: Fill) -> Tensor:
    """Each image of [b, c, h, w] moved down and across by so many pixels, int64 [b] each.

    What comes in is what left on the other side, the border's last pixel again, or 0.
    """
    for axis, by in ((2, down), (3, across)):
        size = pixels.shape[axis]
        source = torch.arange(size, device=pixels.device) - by[:, None]
        held = source % size if fill == "circular" else source.clamp(0, size - 1)
        shape = [len(pixels), 1, 1, 1]
        shape[axis] = size
        moved = pixels.gather(axis, held.view(shape).expand_as(pixels))
        pixels = torch.where((held == source).view(shape), moved, 0) if fill == "zero" else moved
    return pixels


def classes_of(subject: EvalModel, pixels: Tensor) -> Tensor:
    """The most probable classes of pixels in [0, 1], int64 [b]."""
    with torch.no_grad():
        classes: Tensor = subject.model(subject.examples.normalized(pixels)).argmax(1)
    return classes


def fooling_rate(
    config: Perturbing, subject: EvalModel, change: Callable[[PixelBatch], Tensor]
) -> dict[str, float]:
    """The share of the right classes that `change`, of pixels [b, c, h, w] in [0, 1], makes wrong.

    Parts: "", "accuracy" after, and "clean" before. Raises NotApplicable where no class was right.
    """
    total = right = right_after = lost = 0
    examples = subject.examples.first(config.num_images)
    for batch in pixel_batches(examples, config.batch_size):
        before = classes_of(subject, batch.pixels) == batch.labels
        after = classes_of(subject, change(batch)) == batch.labels
        total += len(batch.labels)
        right += int(before.sum())
        right_after += int(after.sum())
        lost += int((before & ~after).sum())
    if not right:
        wrong = f"none of its classes of {total} images was right before"
        raise NotApplicable(f"{subject.name}: {wrong}")
    return {"": lost / right, "accuracy": right_after / total, "clean": right / total}


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest wrong logit minus the right one, [b]; positive where the class is wrong."""
    right = logits.gather(1, labels.unsqueeze(1))
    wrong = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return wrong.amax(1) - right.squeeze(1)


def ascend(
    objective: Objective,
    pixels: Tensor,
    *,
    steps: int,
    step_size: float,
    epsilon: float,
    mask: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent by signs (Madry et al. 2018, arXiv 1706.06083).

    Args:
        objective: of each image alone; its second number says which image is kept.
        pixels: [b, c, h, w] in [0, 1]; the results stay within epsilon of them, and in [0, 1].
        mask: [b, 1, h, w], 1 where pixels may change; None: everywhere.
        start: what is added at first, [b, c, h, w].

    Returns the best image of all steps for each one: [b, c, h, w]; no parameter's `grad` changes.
    """
    allowed = epsilon if mask is None else epsilon * mask.to(pixels.dtype)
    low, high = (pixels - allowed).clamp(min=0), (pixels + allowed).clamp(max=1)
    now = pixels if start is None else (pixels + start).clamp(low, high)
    best, best_score = pixels, torch.full_like(pixels[:, 0, 0, 0], -torch.inf)
    for step in range(steps + 1):
        # Fused attention on GPUs sums gradients in any order: signs of small ones would differ.
        repeatable = nullcontext() if pixels.device.type == "cpu" else sdpa_kernel(SDPBackend.MATH)
        with torch.enable_grad(), repeatable:
            now = now.detach().requires_grad_()
            value, score = objective(now)
            (gradient,) = torch.autograd.grad(value.sum(), now)
        score = score.detach()
        better = score > best_score
        best = torch.where(better.view(-1, 1, 1, 1), now.detach(), best)
        best_score = torch.where(better, score, best_score)
        if step < steps:
            now = (now.detach() + step_size * gradient.sign()).clamp(low, high)
    return best
