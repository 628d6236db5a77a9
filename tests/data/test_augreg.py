"""AugReg's levels, and RandAugment on TensorFlow's scale, against Pillow and torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from vitarium.core.registry import choose
from vitarium.data.augmentations.augreg import LEVELS, AugReg
from vitarium.data.augmentations.policies import randaugment_tf as policies

GRAY = 128 / 255
INDEX = {name: number for number, name in enumerate(policies._OPERATIONS)}


@pytest.fixture
def images():
    pixels = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return pixels.float() / 255


def changed(images, operation, magnitude, direction=1, center=(0.5, 0.5)):
    """The images after that operation alone."""
    policy = choose("policy", "randaugment_tf", num_ops=1, magnitude=magnitude)()
    chosen = (INDEX[operation] + 0.5) / len(INDEX)
    numbers = [chosen, 0.25 if direction < 0 else 0.75, *center]
    return policy.apply(images, torch.tensor([numbers] * len(images), dtype=torch.float64))


def by_pillow(images, change):
    """Of each image as bytes, [n, c, h, w]."""
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    outputs = [np.asarray(change(Image.fromarray(array))) for array in arrays]
    return torch.from_numpy(np.stack(outputs)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("magnitude", [0, 10, 15])
@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_factors_are_a_tenth_at_0_and_1_9_at_10(images, operation, enhancer, magnitude):
    factor = 0.1 + 1.8 * magnitude / 10
    expected = by_pillow(images, lambda image: enhancer(image).enhance(factor))
    # bytes are rounded on the way, and a factor multiplies what that loses
    allowed = (2 + 2 * factor) / 255
    assert (changed(images, operation, magnitude) - expected).abs().max() <= allowed


@pytest.mark.parametrize(("magnitude", "bits"), [(0, 0), (2, 0), (10, 4), (15, 6), (20, 8)])
def test_posterizing_keeps_four_tenths_of_the_magnitude_as_bits(images, magnitude, bits):
    mask = 0xFF ^ (0xFF >> bits)
    expected = (images * 255).round().int() & mask
    lowest_bit = (changed(images, "posterize", magnitude) * 256).floor().int() & mask
    assert torch.equal(lowest_bit, expected)


@pytest.mark.parametrize(("magnitude", "threshold"), [(0, 0), (5, 128), (10, 256), (20, 512)])
def test_solarizing_inverts_from_a_threshold_that_rises(images, magnitude, threshold):
    expected = by_pillow(images, lambda image: ImageOps.solarize(image, threshold))
    torch.testing.assert_close(changed(images, "solarize", magnitude), expected)


@pytest.mark.parametrize(("magnitude", "addition"), [(0, 0), (10, 110), (20, 220)])
def test_dark_pixels_are_brightened(images, magnitude, addition):
    pixels = (images * 255).round().int()
    expected = torch.where(pixels < 128, (pixels + addition).clamp(max=255), pixels) / 255
    torch.testing.assert_close(changed(images, "solarize_add", magnitude), expected)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("magnitude", [10, 15])
def test_geometry_goes_beyond_30_degrees_and_leaves_gray(images, magnitude, direction):
    angle = direction * 3 * magnitude
    fill = [GRAY] * 3
    rotated = tv.rotate(images, angle, InterpolationMode.NEAREST, fill=fill)
    torch.testing.assert_close(changed(images, "rotate", magnitude, direction), rotated)
    pixels = int(100 / 224 * magnitude / 10 * 32) * direction
    expected = torch.full_like(images, GRAY)
    if pixels > 0:
        expected[..., pixels:] = images[..., :-pixels]
    else:
        expected[..., :pixels] = images[..., -pixels:]
    moved = changed(images, "translate_x", magnitude, direction)
    torch.testing.assert_close(moved, expected)


def test_a_square_is_cut_out_around_its_center(images):
    cut = changed(images, "cutout", 10, center=(0.5, 0.25))  # 40 of 224 is 6 of 32
    expected = images.clone()
    expected[:, :, 10:22, 2:14] = GRAY
    torch.testing.assert_close(cut, expected)


@pytest.mark.parametrize("operation", ["autocontrast", "equalize", "invert"])
def test_some_operations_have_no_magnitude(images, operation):
    expected = getattr(tv, operation)(images)
    for magnitude in (0, 20):
        torch.testing.assert_close(changed(images, operation, magnitude), expected)


def test_levels_are_the_published_ones():
    table = {
        "none": (None, 0.0),
        "light0": ((2, 0), 0.0),
        "light1": ((2, 10), 0.2),
        "medium1": ((2, 15), 0.2),
        "medium2": ((2, 15), 0.5),
        "strong1": ((2, 20), 0.5),
        "strong2": ((2, 20), 0.8),
    }
    assert tuple(table) == LEVELS
    from vitarium.data.augmentations.augreg import _POLICIES

    for level, (layers_and_magnitude, mixup) in table.items():
        assert AugReg(level=level).mixup == mixup
        policy = _POLICIES.get(level)
        assert (policy and policy[:2]) == layers_and_magnitude
