"""Multi-crop against torchvision's transforms, and which views there are."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.data.augmentations.multi_crop import local_size, solarized
from vitarium.data.load import load
from vitarium.data.loader import Batches

PHOTO = F.gaussian_blur(
    torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8)), 9, 3.0
)
DRAWS = 250


def build(size=(3, 20, 20), **settings):
    return section("augmentation", {"name": "multi_crop", **settings})(size, 10)


def uniform(rows, numbers, seed=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, numbers, dtype=torch.float64, generator=generator)


def published(size, scale, blur, solarize):
    """DINO's transforms, by torchvision."""
    jitter = v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], blur),
            v2.RandomSolarize(128 / 255, solarize),
        ]
    )


def statistics(images):
    """Of images [n, 3, h, w] in [0, 1]: brightness, contrast, color and sharpness, [4, n]"""
    steps = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    color = (images.amax(1) - images.amin(1)).mean((1, 2))
    return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3)), color, steps]).numpy()


@pytest.mark.parametrize(
    ("view", "size", "scale", "blur", "solarize"),
    [(0, 20, (0.4, 1), 1.0, 0.0), (1, 20, (0.4, 1), 0.1, 0.2), ("local", 8, (0.05, 0.4), 0.5, 0.0)],
)
def test_views_are_distributed_as_by_torchvision(view, size, scale, blur, solarize):
    augmentation = build()
    local = augmentation.other_views["local"]
    change = local.change if view == "local" else augmentation.changes[view]
    frame = local.frame if view == "local" else augmentation.frame
    numbers = uniform(DRAWS, augmentation.numbers)
    ours = change(frame(numbers, 40, 60).cut(PHOTO.expand(DRAWS, -1, -1, -1)), numbers)
    with seeds.seeded(2):
        transform = published(size, scale, blur, solarize)
        # of real numbers: of whole ones, torchvision rounds down after every change
        reference = torch.stack([transform(PHOTO.float() / 255) for _ in range(DRAWS)])
    for values, expected in zip(statistics(ours), statistics(reference), strict=True):
        assert ks_2samp(values, expected).pvalue > 0.01


def test_solarized_pixels_are_torchvisions():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = F.solarize(pixels, 128)
    assert torch.equal((solarized(pixels.float() / 255) * 255).round().to(torch.uint8), expected)


@pytest.mark.parametrize(("size", "local"), [(224, 96), (16, 8), (8, 4), (32, 12)])
def test_local_crops_are_smaller_in_dinos_proportion(size, local):
    assert local_size(size) == local
    assert build((3, size, size)).other_views["local"].size == (3, local, local)


def test_undistorted_views_show_the_parts_that_the_global_ones_show():
    augmentation = build(local_crops=0, undistorted=2, interpolation="bilinear")
    (name, large), *none = augmentation.other_views.items()
    assert (name, none, large.numbers, large.count) == ("undistorted", [], 0, 2)
    numbers = uniform(6, augmentation.numbers)
    batch = PHOTO.expand(6, -1, -1, -1)
    views = large.change(large.frame(numbers, 40, 60).cut(batch), numbers)
    assert views.shape == (6, 3, 40, 40)
    framed = augmentation.frame(numbers, 40, 60).cut(batch)
    smaller = torch.nn.functional.avg_pool2d(views, 2)
    assert (smaller - framed).abs().mean() < 0.005
    assert (smaller - framed.roll(1, 0)).abs().mean() > 0.02


def test_batches_have_all_views_one_after_the_other():
    augmentation = build((1, 8, 8), local_crops=3, local_size=4, undistorted=2)
    batches = Batches(
        load(section("dataset", "digits")), augmentation, (1, 8, 8), 5, seed=0, views=2
    )
    batch = next(batches.train(1))
    assert batch.images.shape == (10, 1, 8, 8)
    assert {name: tuple(views.shape) for name, views in batch.other_views.items()} == {
        "local": (15, 1, 4, 4),
        "undistorted": (10, 1, 16, 16),
    }
    first, second, third = batch.other_views["local"].split(5)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize(
    "settings",
    [
        {"global_scale": [1, 0.1]},
        {"local_scale": [0.5, 1.5]},  # a crop larger than the image
        {"global_blur": [0.5]},
        {"local_blur": 1.1},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidConfig):
        build(**settings)
