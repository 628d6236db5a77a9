"""Whole-batch augmentation against the per-image transforms of torchvision and timm.

Given the same parameters the pixels are the same; drawn at random, the distributions are: by
Kolmogorov and Smirnov's test of two samples, with fixed seeds.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vitarium.core import seeds
from vitarium.data.augmentations._color import JITTER_NUMBERS, _hue, blurred, jittered
from vitarium.data.augmentations._crops import (
    CROP_NUMBERS,
    CroppedAxis,
    Frame,
    random_resized_crops,
    resized_crops,
)
from vitarium.data.augmentations._erasing import ERASING_NUMBERS, erased
from vitarium.data.augmentations._mixup import MIXING_NUMBERS, mix_batches
from vitarium.data.augmentations._rotation import rotated_images

PHOTOS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 40, 60), np.uint8))
SMOOTH = F.gaussian_blur(PHOTOS.float() / 255, 9, 3.0)
DRAWS = 4000


def uniform(*shape, seed=1):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same_distribution(ours, reference):
    return ks_2samp(np.asarray(ours), np.asarray(reference)).pvalue > 0.01


# Pixels


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("shorter", [20, 40, 56])
def test_resizing_and_the_middle_crop(mode, shorter):
    frame = resized_crops((40, 60), (24, 30), shorter=shorter, interpolation=mode)
    interpolation = v2.InterpolationMode(mode)
    resized = F.resize(PHOTOS.float() / 255, [shorter], interpolation, antialias=True)
    expected = F.center_crop(resized, [24, 30])
    assert torch.allclose(frame.cut(PHOTOS), expected.clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("size", [(17, 23), (40, 32), (90, 75)])
def test_resampling_is_that_of_pillow(mode, size):
    """Pillow rounds the columns to whole numbers, and clips them, before it resamples the rows."""
    frame = resized_crops((40, 60), size, squashed=size, interpolation=mode)
    photos = PHOTOS // 4 + 96
    augmented = frame.cut(photos)
    for image, pixels in zip(photos, augmented, strict=True):
        photo = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = photo.resize(size[::-1], Image.Resampling[mode.upper()])
        expected = torch.from_numpy(np.array(expected)).permute(2, 0, 1) / 255
        assert (pixels - expected).abs().max() < 2.5 / 255


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_random_resized_crops_with_their_own_boxes_and_flips(mode):
    tops, lefts, heights, widths = torch.tensor(
        [[0, 3, 10, 0, 20, 39], [0, 5, 30, 59, 2, 0], [40, 8, 30, 40, 20, 1], [60, 9, 7, 1, 40, 60]]
    )
    flipped = torch.tensor([False, True, False, True, True, False])
    none, size = torch.zeros(6, dtype=torch.long), (16, 20)
    frame = Frame(
        CroppedAxis(tops, heights, none + size[0], none),
        CroppedAxis(lefts, widths, none + size[1], none),
        size,
        mode,
        flipped,
    )
    augmented = frame.cut(PHOTOS)
    for n in range(6):
        box = (int(tops[n]), int(lefts[n]), int(heights[n]), int(widths[n]))
        pixels = PHOTOS[n].float() / 255
        expected = F.resized_crop(
            pixels, *box, list(size), v2.InterpolationMode(mode), antialias=True
        ).clamp(0, 1)
        expected = expected.flip(2) if flipped[n] else expected
        assert torch.allclose(augmented[n], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crops_of_padded_images(mode):
    places = uniform(6, 2)
    frame = resized_crops(
        (40, 60), (40, 60), shorter=40, padding=4, padding_mode=mode, crop_numbers=places
    )
    augmented = frame.cut(PHOTOS)
    padded = F.pad(PHOTOS, [4], padding_mode=mode).float() / 255
    for n in range(6):
        top, left = (int(place * 9) for place in places[n])
        assert torch.allclose(
            augmented[n], padded[n, :, top : top + 40, left : left + 60], atol=1e-6
        )


@pytest.mark.parametrize("degrees", [-30.0, 7.0, 90.0])
def test_rotations(degrees):
    augmented = rotated_images(SMOOTH, torch.full((6,), degrees))
    expected = F.rotate(SMOOTH, degrees, v2.InterpolationMode.BILINEAR)
    inside = F.rotate(torch.ones_like(SMOOTH), degrees, v2.InterpolationMode.BILINEAR) == 1
    assert inside.float().mean() > 0.3
    assert torch.allclose(augmented[inside], expected[inside], atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 9, 23])
def test_blurs_of_different_strength(kernel):
    sigmas = torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0])
    augmented = blurred(SMOOTH, sigmas, kernel)
    for n, sigma in enumerate(sigmas.tolist()):
        expected = F.gaussian_blur(SMOOTH[n], [kernel, kernel], [sigma, sigma])
        assert torch.allclose(augmented[n], expected, atol=1e-5)


def test_hues():
    for shift in (-0.5, -0.2, 0.1, 0.45):
        augmented = _hue(SMOOTH, torch.full((6, 1, 1, 1), shift))
        assert torch.allclose(augmented, F.adjust_hue(SMOOTH, shift), atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_colours_are_changed_in_the_drawn_order(order):
    numbers = uniform(6, JITTER_NUMBERS)
    numbers[:, 4:] = torch.tensor(order).argsort().double() / 4
    augmented = jittered(SMOOTH, numbers, brightness=0.4, contrast=0.3, saturation=0.8, hue=0.2)
    for n in range(6):
        b, c, s, h = numbers[n, :4].tolist()
        changes = [
            lambda x, b=b: F.adjust_brightness(x, 0.6 + 0.8 * b),
            lambda x, c=c: F.adjust_contrast(x, 0.7 + 0.6 * c),
            lambda x, s=s: F.adjust_saturation(x, 0.2 + 1.6 * s),
            lambda x, h=h: F.adjust_hue(x, -0.2 + 0.4 * h),
        ]
        expected = SMOOTH[n]
        for which in order:
            expected = changes[which](expected)
        assert torch.allclose(augmented[n], expected, atol=1e-4)


# Distributions


@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (0.2, 0.5))]
)
def test_crop_areas_shapes_and_places(scale, ratio):
    frame = random_resized_crops(
        (40, 60), (16, 16), scale=scale, ratio=ratio, numbers=uniform(DRAWS, CROP_NUMBERS)
    )
    with seeds.seeded(2):
        crop = v2.RandomResizedCrop(16, scale=scale, ratio=ratio)
        reference = [crop.make_params([PHOTOS[0]]) for _ in range(DRAWS)]
    reference = {key: np.array([one[key] for one in reference]) for key in reference[0]}
    heights, widths = frame.rows.length.numpy(), frame.columns.length.numpy()
    assert same_distribution(heights * widths, reference["height"] * reference["width"])
    assert same_distribution(widths / heights, reference["width"] / reference["height"])
    assert same_distribution(frame.rows.start.numpy(), reference["top"])
    assert same_distribution(frame.columns.start.numpy(), reference["left"])


def test_erased_areas_shapes_and_how_often():
    ours = erased(torch.ones(DRAWS, 1, 32, 32), uniform(DRAWS, ERASING_NUMBERS), 0.25) == 0
    with seeds.seeded(3):
        erase = RandomErasing(probability=0.25, mode="const", device="cpu")
        reference = erase(torch.ones(DRAWS, 1, 32, 32)) == 0
    found = []
    for masks in (ours, reference):
        touched = masks[masks.flatten(1).any(1), 0]
        assert abs(len(touched) / DRAWS - 0.25) < 0.03
        tall, wide = touched.any(2).sum(1), touched.any(1).sum(1)
        top = touched.any(2).int().argmax(1)
        found.append((touched.flatten(1).sum(1), tall / wide, top))
    for one, other in zip(*found, strict=True):
        assert same_distribution(one, other)


def test_erased_colours_are_normal():
    augmented = erased(torch.zeros(DRAWS, 3, 8, 8), uniform(DRAWS, ERASING_NUMBERS), 1.0, "rand")
    colors = augmented.flatten(2).sum(2) / (augmented != 0).flatten(2).sum(2).clamp(min=1)
    assert same_distribution(colors.flatten(), np.random.default_rng(5).normal(size=3 * DRAWS))


@pytest.mark.parametrize("settings", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_shares_of_mixup_and_cutmix(settings):
    images, classes = torch.zeros(2, 1, 32, 32), torch.tensor([0, 1])
    targets = torch.eye(2).expand(DRAWS, 2, 2)
    given = uniform(DRAWS, 2, MIXING_NUMBERS, seed=2)
    _, ours = mix_batches(
        images.expand(DRAWS, -1, -1, -1, -1), targets, given, **settings, mode="batch"
    )
    timm = Mixup(settings["mixup"], settings["cutmix"], label_smoothing=0.0, num_classes=2)
    with seeds.seeded(4):
        reference = [timm(images.clone(), classes)[1][0, 0].item() for _ in range(DRAWS)]
    assert same_distribution(ours[:, 0, 0], reference)


def test_mixup_and_cutmix_take_turns():
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    given = uniform(DRAWS, 2, MIXING_NUMBERS)
    augmented, _ = mix_batches(
        images.expand(DRAWS, -1, -1, -1, -1),
        torch.eye(2).expand(DRAWS, 2, 2),
        given,
        mixup=0.8,
        cutmix=1.0,
        mode="batch",
    )
    pasted = ((augmented == 0) | (augmented == 1)).flatten(1).all(1)
    assert abs(pasted.float().mean() - 0.5) < 0.05
