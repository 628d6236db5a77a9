"""Corruptions against scipy, Pillow, torchvision and closed forms."""

import colorsys
import math
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import correlate, gaussian_filter
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vitarium.measures.robustness import _corruption_functions as functions
from vitarium.measures.robustness._corruption_functions import (
    CORRUPTIONS,
    CorruptionName,
    corrupted,
    strength,
)
from vitarium.measures.robustness._perturbation import streams

NAMES = get_args(CorruptionName)


def smooth_images(count=6, channels=3, size=32):
    """Images with large and small structure, float32 in [0.1, 0.9]."""
    noise = np.random.default_rng(0).random((count, channels, size, size))
    mixed = gaussian_filter(noise, (0, 0, 2, 2)) * 5 + 0.3 * noise
    low, high = mixed.min(), mixed.max()
    return torch.from_numpy(0.1 + 0.8 * (mixed - low) / (high - low)).float()


@pytest.fixture(scope="module")
def images():
    return smooth_images()


def generators(count=6, seed=0):
    return streams(seed, "test", range(count))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strengths", ["cifar_c", "imagenet_c"])
def test_each_severity_is_farther_from_the_clean_image(images, name, strengths):
    if strengths == "imagenet_c":
        images = smooth_images(count=3, size=96)
    distances = [
        (corrupted(images, name, severity, generators(len(images)), strengths) - images).square()
        for severity in (1, 2, 3, 4, 5)
    ]
    means = [distance.mean().sqrt().item() for distance in distances]
    assert means[0] > 1e-3
    # CIFAR-10-C's third and fourth motion blur differ in nothing but the length of a faint tail.
    assert all(more > 0.99 * less for less, more in pairwise(means)), means
    assert means[4] > max(1.2 * means[0], means[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 12), (1, 100, 90)])
def test_any_size_and_gray_images_keep_their_shape_and_range(name, shape):
    pixels = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    for severity in (1, 5):
        changed = corrupted(pixels, name, severity, generators(2))
        assert changed.shape == pixels.shape
        assert changed.dtype == torch.float32
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not torch.equal(changed, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_becomes_the_same_in_any_batch(images, name):
    whole = corrupted(images, name, 3, generators())
    alone = torch.cat(
        [corrupted(images[[i]], name, 3, streams(0, "test", [i])) for i in range(len(images))]
    )
    assert torch.allclose(whole, alone, atol=1e-6)


def test_gaussian_noise_has_its_mean_and_deviation():
    gray = torch.full((4, 3, 64, 64), 0.5)
    noise = functions.gaussian_noise(gray, 0.08, generators(4)) - gray
    count = noise.numel()
    assert abs(noise.mean().item()) < 4 * 0.08 / math.sqrt(count)
    assert noise.std().item() == pytest.approx(0.08, rel=4 / math.sqrt(2 * count))


def test_shot_noise_is_poisson():
    """Mean x, variance x / photons."""
    gray = torch.full((4, 3, 64, 64), 0.5)
    noisy = functions.shot_noise(gray, 60, generators(4))
    count = noisy.numel()
    assert noisy.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(0.5 / 60 / count))
    assert noisy.var().item() == pytest.approx(0.5 / 60, rel=6 / math.sqrt(count / 2))
    assert torch.allclose(noisy * 60, (noisy * 60).round(), atol=1e-4)


def test_impulse_noise_is_salt_and_pepper_of_a_share_of_the_values():
    gray = torch.full((4, 3, 64, 64), 0.5)
    noisy = functions.impulse_noise(gray, 0.2, generators(4))
    count = noisy.numel()
    for value in (0, 1):
        share = (noisy == value).float().mean().item()
        assert share == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / count))
    assert ((noisy == 0) | (noisy == 1) | (noisy == 0.5)).all()


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.3])
def test_gaussian_blur_is_scipys(images, sigma):
    images = images.double()
    expected = gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    found = functions.gaussian_blur(images, sigma)
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-12)


def test_defocus_blur_is_the_mean_over_a_disk(images):
    offsets = np.arange(-3, 4)
    disk = (offsets[:, None] ** 2 + offsets**2 <= 9).astype(float)
    expected = correlate(images.double().numpy(), disk[None, None] / disk.sum(), mode="nearest")
    found = functions.defocus_blur(images.double(), 3, 0.1)
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-12)


def test_defocus_blur_of_a_small_disk_is_its_soft_edge(images):
    soft = functions.defocus_blur(images.double(), 0.5, 0.6)
    assert torch.allclose(soft, functions.gaussian_blur(images.double(), 0.6), atol=1e-12)


@pytest.mark.parametrize("blur", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur"])
def test_blurs_leave_a_uniform_image_as_it_is(blur):
    gray = torch.full((2, 3, 32, 32), 0.3)
    assert torch.allclose(corrupted(gray, blur, 5, generators(2)), gray, atol=1e-5)


def test_motion_blur_smears_a_point_along_a_line_of_its_own():
    pixels = torch.zeros(8, 1, 41, 41)
    pixels[:, :, 20, 20] = 1
    weights = torch.exp(-0.5 * (torch.arange(13) / 2.0) ** 2)
    far = ((weights * torch.arange(13)).sum() / weights.sum()).item()
    angles = []
    for line in functions.motion_blur(pixels, 6, 2.0, generators(8))[:, 0]:
        assert line.sum().item() == pytest.approx(1, abs=1e-5)
        assert line.max() == line[20, 20]
        place = torch.arange(41) - 20.0
        down, across = (line.sum(1) * place).sum(), (line.sum(0) * place).sum()
        assert torch.hypot(down, across).item() == pytest.approx(far, abs=0.3)
        angles.append(math.atan(down / across))
    assert max(map(abs, angles)) < math.pi / 4 + 0.15
    assert max(angles) - min(angles) > 0.5


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements(images):
    """A linear ramp enlarged about its middle is a flatter ramp, away from the border."""
    ramp = torch.linspace(0, 1, 33, dtype=torch.float64).expand(1, 1, 33, 33)
    found = functions.zoom_blur(ramp, 3, 0.1)
    slope = (1 + 1 + 1 / 1.1 + 1 / 1.2) / 4
    assert torch.allclose(found, 0.5 + slope * (ramp - 0.5), atol=1e-12)
    assert torch.allclose(functions.zoom_blur(images, 1, 0.5), images, atol=1e-5)


def test_brightness_is_added_to_the_value_of_hsv(images):
    uint8 = (images * 255).round() / 255
    found = functions.brightness(uint8, 0.2)
    for image, brighter in zip(uint8, found, strict=True):
        hsv = np.asarray(_hsv(image), dtype=np.float64)
        value = np.clip(hsv[2] + 0.2, 0, 1)
        again = _hsv(brighter)
        assert np.allclose(again[2], value, atol=1e-6)
        assert np.allclose(again[0], hsv[0], atol=1e-4)
        assert np.allclose(again[1], hsv[1], atol=1e-4)


def _hsv(image):
    """Hue, saturation and value of [3, h, w], by the standard library."""
    triples = image.double().flatten(1).T.tolist()
    return np.array([colorsys.rgb_to_hsv(*triple) for triple in triples]).T


def test_nothing_added_and_full_contrast_change_nothing(images):
    assert torch.allclose(functions.brightness(images, 0.0), images, atol=1e-6)
    assert torch.allclose(functions.contrast(images, 1.0), images, atol=1e-6)
    assert torch.equal(functions.impulse_noise(images, 0.0, generators()), images)
    assert torch.equal(functions.gaussian_noise(images, 0.0, generators()), images)
    assert torch.allclose(functions.pixelate(images, 1.0), images)


def test_brightness_makes_black_gray_and_clips_white():
    pixels = torch.tensor([0.0, 0.5, 0.9]).view(1, 1, 1, 3)
    assert torch.allclose(functions.brightness(pixels, 0.3), torch.tensor([0.3, 0.8, 1.0]))
    black = torch.zeros(1, 3, 2, 2)
    assert torch.allclose(functions.brightness(black, 0.3), torch.full((1, 3, 2, 2), 0.3))


def test_contrast_keeps_the_mean_and_scales_the_deviation_of_each_channel(images):
    found = functions.contrast(images, 0.4)
    assert torch.allclose(found.mean((-2, -1)), images.mean((-2, -1)), atol=1e-6)
    assert torch.allclose(found.std((-2, -1)), 0.4 * images.std((-2, -1)), atol=1e-6)


@pytest.mark.parametrize("size", [32, 28])
@pytest.mark.parametrize("share", [0.95, 0.75, 0.5, 0.25])
def test_pixelate_is_torchvisions_resize_by_boxes_both_ways(size, share):
    pixels = smooth_images(2, 1, size)
    fewer = int(size * share)
    for image, found in zip(pixels, functions.pixelate(pixels, share), strict=True):
        small = transforms.resize(
            Image.fromarray(image[0].numpy()), [fewer, fewer], InterpolationMode.BOX
        )
        large = transforms.resize(small, [size, size], InterpolationMode.BOX)
        assert np.allclose(np.asarray(large), found[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("quality", [40, 10])
def test_jpeg_of_a_gray_image_rounds_the_cosine_transform_of_its_blocks(quality):
    pixels = smooth_images(2, 1, 32)
    found = functions.jpeg(pixels, quality)
    steps = np.floor((LUMINANCE * 5000 / quality + 50) / 100)
    bytes_ = (pixels * 255).round().numpy()
    apart = []
    for row, column in np.ndindex(4, 4):
        block = np.s_[:, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        transformed = dctn(bytes_[block].astype(float) - 128, axes=(1, 2), norm="ortho")
        rounded = np.round(transformed / steps) * steps
        expected = idctn(rounded, axes=(1, 2), norm="ortho") + 128
        difference = found.numpy()[block] * 255 - expected.clip(0, 255)
        apart += np.abs(difference).mean((1, 2)).tolist()
    # libjpeg computes in whole numbers: now and then it rounds a coefficient otherwise.
    assert np.quantile(apart, 0.8) < 0.6
    assert max(apart) < steps.max() / 8


LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""How coarsely the standard's example (ITU T.81, Table K.1) rounds at quality 50."""


def test_jpeg_keeps_colours(images):
    assert (functions.jpeg(images, 95) - images).abs().mean() < 0.05
    flat = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert torch.allclose(functions.jpeg(flat, 80), flat, atol=0.02)


def test_severities_are_those_of_the_image_size_that_is_nearer():
    assert strength("gaussian_noise", 1, 32) == (0.04,)
    assert strength("gaussian_noise", 1, 84) == (0.04,)
    assert strength("gaussian_noise", 1, 85) == (0.08,)
    assert strength("gaussian_noise", 1, 32, "imagenet_c") == (0.08,)


def test_blurs_are_as_wide_as_the_image_asks_and_not_below_cifars():
    assert strength("gaussian_blur", 5, 224) == (6,)
    assert strength("gaussian_blur", 5, 448) == (12,)
    assert strength("gaussian_blur", 5, 64) == (2,)
    assert strength("gaussian_blur", 5, 8) == (1,)
    assert strength("pixelate", 5, 448) == (0.25,)


def test_every_named_corruption_has_five_severities():
    assert set(CORRUPTIONS) == set(NAMES)
    for corruption in CORRUPTIONS.values():
        assert len(corruption.cifar) == len(corruption.imagenet) == 5
