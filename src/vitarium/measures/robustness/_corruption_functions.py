"""Common corruptions of images, after ImageNet-C and CIFAR-10-C, each one a function.

A function takes pixels float [b, c, h, w] in [0, 1], how strong it is, and a generator for each
image, and gives pixels of the same shape. Borders are continued by their last pixel. `corrupted`
looks up how strong a severity is. The five of the fifteen that need pictures of frost, fractals or
shuffled pixels (glass blur, snow, frost, fog, elastic transform) are left out.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from vitarium.measures.robustness._perturbation import drawn, shifted

Generators = Sequence[Generator]
Strengths = Literal["auto", "cifar_c", "imagenet_c"]
Noise = Literal["gaussian_noise", "shot_noise", "impulse_noise"]
Blur = Literal["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"]
CorruptionName = Literal[Noise, Blur, "brightness", "contrast", "pixelate", "jpeg"]
F = TypeVar("F", bound=Callable[..., Tensor])
CIFAR_SIZE, IMAGENET_SIZE = 32, 224
Level = float | tuple[float, ...]
"""The numbers, or the one number, that a function is called with."""


@dataclass(frozen=True)
class Corruption:
    """A corruption and how strong its five severities are."""

    function: Callable[..., Tensor]
    cifar: Sequence[Level]
    imagenet: Sequence[Level]
    lengths: bool
    """Whether the numbers are pixels, that grow with the image."""


CORRUPTIONS: dict[str, Corruption] = {}


def corruption(
    cifar: Sequence[Level], imagenet: Sequence[Level], lengths: bool = False
) -> Callable[[F], F]:
    """Enter a function into `CORRUPTIONS`, by its name; see `Corruption`."""

    def decorate(function: F) -> F:
        CORRUPTIONS[function.__name__] = Corruption(function, cifar, imagenet, lengths)
        return function

    return decorate


def corrupted(
    pixels: Tensor,
    name: CorruptionName,
    severity: int,
    generators: Generators,
    strengths: Strengths = "auto",
) -> Tensor:
    """Pixels [b, c, h, w] in [0, 1], corrupted; see `strength` for what a severity is."""
    level = strength(name, severity, min(pixels.shape[-2:]), strengths)
    return CORRUPTIONS[name].function(pixels, *level, generators).clamp(0, 1)


def strength(
    name: CorruptionName, severity: int, size: int, strengths: Strengths = "auto"
) -> tuple[float, ...]:
    """How strong a severity (1 to 5) is for images of `size` pixels (the shorter side).

    The numbers are those of CIFAR-10-C, made for 32 pixels, or of ImageNet-C, made for 224 (code of
    Hendrycks & Dietterich 2019); "auto": the nearer in ratio, CIFAR-10-C's below 85 pixels. Lengths
    grow with the image; CIFAR-10-C's do not shrink below 32 pixels: the blur would change nothing.
    """
    if strengths == "auto":
        strengths = "cifar_c" if size**2 < CIFAR_SIZE * IMAGENET_SIZE else "imagenet_c"
    corruption = CORRUPTIONS[name]
    if strengths == "cifar_c":
        level, scale = corruption.cifar[severity - 1], max(1.0, size / CIFAR_SIZE)
    else:
        level, scale = corruption.imagenet[severity - 1], size / IMAGENET_SIZE
    numbers = level if isinstance(level, tuple) else (level,)
    return tuple(scale * number for number in numbers) if corruption.lengths else numbers


@corruption([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12, 0.18, 0.26, 0.38])
def gaussian_noise(pixels: Tensor, std: float, generators: Generators) -> Tensor:
    """Normal noise of that standard deviation, on pixels [b, c, h, w]."""
    noise = drawn(torch.randn, pixels.shape[1:], generators).to(pixels)
    return pixels + std * noise


@corruption([500, 250, 100, 75, 50], [60, 25, 12, 5, 3])
def shot_noise(pixels: Tensor, photons: float, generators: Generators) -> Tensor:
    """Poisson noise on pixels [b, c, h, w]; white is so many photons on average."""
    rates = (pixels * photons).cpu()
    pairs = zip(rates, generators, strict=True)
    return torch.stack([torch.poisson(r, generator=g) for r, g in pairs]).to(pixels) / photons


@corruption([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27])
def impulse_noise(pixels: Tensor, share: float, generators: Generators) -> Tensor:
    """Salt and pepper on pixels [b, c, h, w]: a share becomes 0 or 1, with equal probability."""
    hit, side = drawn(torch.rand, (2, *pixels.shape[1:]), generators).to(pixels).unbind(1)
    return torch.where(hit < share, (side < 0.5).to(pixels), pixels)


@corruption([0.4, 0.6, 0.7, 0.8, 1], [1, 2, 3, 4, 6], lengths=True)
def gaussian_blur(pixels: Tensor, sigma: float, generators: Generators = ()) -> Tensor:
    """Gaussian blur of pixels [b, c, h, w]; the kernel ends at 4 sigma, as scikit-image's."""
    weights = _gaussian(sigma).to(pixels)
    return _filtered(_filtered(pixels, weights[:, None]), weights[None])


@corruption(
    [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    lengths=True,
)
def defocus_blur(
    pixels: Tensor, radius: float, alias_blur: float, generators: Generators = ()
) -> Tensor:
    """Mean of pixels [b, c, h, w] over a disk; its edge is blurred with sigma `alias_blur`."""
    soft = _gaussian(alias_blur)
    reach = math.floor(radius) + len(soft) // 2
    offsets = torch.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).to(soft)
    kernel = functional.conv2d(
        disk[None, None], (soft[:, None] * soft)[None, None], padding="same"
    )[0, 0]
    return _filtered(pixels, (kernel / kernel.sum()).to(pixels))


@corruption(
    [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    lengths=True,
)
def motion_blur(pixels: Tensor, radius: float, sigma: float, generators: Generators) -> Tensor:
    """Half a Gaussian along 2 radius + 1 pixels [b, c, h, w], up to 45 degrees from horizontal."""
    angles = (drawn(torch.rand, (), generators) - 0.5) * (math.pi / 2)
    along = torch.arange(2 * round(radius) + 1)
    weights = torch.exp(-0.5 * (along / sigma) ** 2)
    weights = weights / weights.sum()
    down = (along * angles.sin()[:, None]).round().long().to(pixels.device)
    across = (along * angles.cos()[:, None]).round().long().to(pixels.device)
    total = torch.zeros_like(pixels)
    for index, weight in enumerate(weights.tolist()):
        total += weight * shifted(pixels, down[:, index], across[:, index], "edge")
    return total


@corruption(
    [(6, 0.01), (11, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)],
    [(11, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)],
)
def zoom_blur(pixels: Tensor, count: float, step: float, generators: Generators = ()) -> Tensor:
    """Mean of pixels [b, c, h, w] and `count` enlargements: 1, 1 + step, 1 + 2 step, ..."""
    total = pixels.clone()
    for number in range(round(count)):
        zoom = 1 + step * number
        shrink = torch.tensor([[[1 / zoom, 0, 0], [0, 1 / zoom, 0]]]).to(pixels)
        grid = functional.affine_grid(shrink, [1, *pixels.shape[1:]], align_corners=False)
        grid = grid.expand(len(pixels), -1, -1, -1)
        total += functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return total / (round(count) + 1)


@corruption([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5])
def brightness(pixels: Tensor, added: float, generators: Generators = ()) -> Tensor:
    """Adds to the value (HSV) of pixels [b, c, h, w]; hue and saturation stay."""
    value = pixels.amax(1, keepdim=True)
    brighter = (value + added).clamp(0, 1)
    return torch.where(value > 0, pixels * (brighter / value.clamp(min=1e-12)), brighter)


@corruption([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05])
def contrast(pixels: Tensor, share: float, generators: Generators = ()) -> Tensor:
    """Scales the differences of pixels [b, c, h, w] to their channel's mean by `share`."""
    mean = pixels.mean((-2, -1), keepdim=True)
    return mean + share * (pixels - mean)


@corruption([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25])
def pixelate(pixels: Tensor, share: float, generators: Generators = ()) -> Tensor:
    """Box-downsamples pixels [b, c, h, w] to a share of the size and back, as Pillow's BOX."""
    down, across = (_boxes(size, int(size * share)).to(pixels) for size in pixels.shape[-2:])
    return down @ pixels @ across.T


@corruption([80, 65, 58, 50, 40], [25, 18, 15, 10, 7])
def jpeg(pixels: Tensor, quality: float, generators: Generators = ()) -> Tensor:
    """JPEG compression of pixels [b, c, h, w], 8 bits, gray or color, by Pillow."""
    decoded = []
    for image in (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu():
        file = io.BytesIO()
        # Pillow takes gray images as [h, w] and colors as [h, w, 3].
        channels_last = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        Image.fromarray(channels_last.numpy()).save(file, "JPEG", quality=round(quality))
        read = torch.from_numpy(np.array(Image.open(file)))
        decoded.append(read.unsqueeze(0) if len(image) == 1 else read.permute(2, 0, 1))
    return torch.stack(decoded).to(pixels) / 255


def _gaussian(sigma: float) -> Tensor:
    """Weights of a Gaussian to four sigmas, float64, summing to 1."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def _filtered(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Every channel under a kernel [m, n] of odd sizes; borders are continued."""
    down, across = (size // 2 for size in kernel.shape)
    padded = functional.pad(pixels, (across, across, down, down), mode="replicate")
    channels = padded.flatten(0, 1).unsqueeze(1)
    return functional.conv2d(channels, kernel[None, None]).view_as(pixels)


def _boxes(size: int, fewer: int) -> Tensor:
    """[size, size]: the mean of each pixel's box, where `fewer` boxes cover all pixels."""
    fewer = max(1, fewer)
    # In whole numbers: of a pixel's middle on the edge of two boxes, rounding would decide.
    middles = (2 * torch.arange(size) + 1) * fewer
    inside = functional.one_hot((middles - 1) // (2 * size), fewer).double()
    means = inside / inside.sum(0)
    return means.T[middles // (2 * size)]
