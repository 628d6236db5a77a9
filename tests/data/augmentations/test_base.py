"""Augmentation of whole batches: every setting does what it says, to each image by itself."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import plugins, section
from vitarium.testing import check_augmentation

IMAGE = torch.arange(3 * 40 * 60).reshape(3, 40, 60).remainder(256).to(torch.uint8)
ONE_OF = torch.eye(10)


def build(name="standard", size=(3, 24, 24), **settings):
    return section("augmentation", {"name": name, **settings})(size, 10)


def numbers(augmentation, *shape, seed=0):
    stream = torch.Generator().manual_seed(seed)
    shape = (*shape, augmentation.numbers)
    return torch.rand(shape, dtype=torch.float64, generator=stream)


def augment(augmentation, images, given):
    framed = augmentation.frame(given, *images.shape[-2:]).cut(images)
    return augmentation.change(framed, given)


def scored(augmentation, images):
    return augmentation.plain(*images.shape[-2:]).cut(images)


def mix(augmentation, images, targets, seed=0):
    """One model's batch."""
    given = numbers(augmentation, 1, len(images), seed=seed)
    mixed, shares = augmentation.mix(images[None].clone(), targets[None], given)
    return mixed[0], shares[0]


EVERYTHING = {
    "horizontal_flip": 0.5,
    "rotation": 10,
    "color_jitter": 0.3,
    "random_erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
}


@pytest.mark.parametrize("name", sorted(plugins("augmentation")))
def test_every_augmentation_keeps_to_the_contract(name):
    check_augmentation(name)


def test_without_settings_training_sees_what_scoring_sees():
    augmentation = build()
    batch = IMAGE.expand(4, -1, -1, -1)
    given = numbers(augmentation, 4)
    assert torch.equal(augment(augmentation, batch, given), scored(augmentation, batch))
    images, targets = torch.randn(4, 3, 24, 24), ONE_OF[:4]
    mixed, mixed_targets = mix(augmentation, images, targets)
    assert torch.equal(mixed, images)
    assert torch.equal(mixed_targets, targets)


@pytest.mark.parametrize("crop", ["center", "random", "random_resized"])
@pytest.mark.parametrize("size", [(3, 24, 24), (1, 32, 32), (3, 48, 48)])
def test_every_image_becomes_the_models_size(crop, size):
    augmentation = build(size=size, crop=crop, **EVERYTHING)
    made = augment(augmentation, IMAGE.expand(6, -1, -1, -1), numbers(augmentation, 6))
    assert made.shape == (6, *size)
    assert made.min() >= 0
    assert made.max() <= 1


def test_gray_images_are_repeated_for_a_model_that_takes_colour():
    augmentation = build()
    made = augment(augmentation, IMAGE[None, :1], numbers(augmentation, 1))
    assert made.shape == (1, 3, 24, 24)
    assert torch.equal(made[:, 0], made[:, 2])


def test_a_flip_happens_as_often_as_its_probability():
    flip = build(size=(3, 40, 40), horizontal_flip=0.3)
    batch = IMAGE[None, :, :, :40].expand(1000, -1, -1, -1)
    made = augment(flip, batch, numbers(flip, 1000))
    mirrored = (made - batch.flip(3) / 255).abs().flatten(1).amax(1) < 1e-5
    assert 250 < mirrored.sum() < 350


def test_a_random_crop_reaches_every_place_of_the_padded_image():
    crop = build(size=(1, 8, 8), crop="random", padding=2)
    image = torch.arange(1, 65).reshape(1, 1, 8, 8).to(torch.uint8).expand(500, -1, -1, -1)
    made = augment(crop, image, numbers(crop, 500))
    middles = (made[:, 0, 4, 4] * 255).round().unique()
    assert len(middles) == 25


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("settings", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1}])
def test_mixed_targets_are_shares_of_two_classes(settings, mode):
    images, targets = torch.randn(8, 3, 24, 24), ONE_OF[:8]
    _, shares = mix(build(**settings, mixup_mode=mode), images, targets, seed=3)
    assert torch.allclose(shares.sum(1), torch.ones(8))
    share = (shares * targets).sum(1, keepdim=True)
    assert torch.allclose(shares, share * targets + (1 - share) * targets.flip(0))
    if mode != "elem":
        assert torch.allclose(share, share.flip(0))
    assert (len(share.unique()) == 1) == (mode == "batch")


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_mixes_pixels_with_the_share_of_the_targets(mode):
    images, targets = torch.randn(8, 3, 24, 24), ONE_OF[:8]
    mixed, shares = mix(build(mixup=0.8, mixup_mode=mode), images, targets, seed=1)
    share = (shares * targets).sum(1).view(-1, 1, 1, 1)
    assert ((share > 0) & (share < 1)).all()
    assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-6)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cutmix_pastes_a_rectangle_as_large_as_the_share_of_the_targets(mode):
    images, targets = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 24, 24), ONE_OF[:8]
    mixed, shares = mix(build(cutmix=1.0, mixup_mode=mode), images, targets, seed=5)
    pasted = (mixed == images.flip(0)).all(1)
    assert torch.equal(pasted | (mixed == images).all(1), torch.ones(8, 24, 24, dtype=torch.bool))
    assert torch.allclose(1 - pasted.flatten(1).float().mean(1), (shares * targets).sum(1))
    rows, columns = pasted.any(2), pasted.any(1)
    assert torch.equal(pasted, rows.unsqueeze(2) & columns.unsqueeze(1))


def test_mixing_refuses_batches_whose_images_make_no_pairs():
    with pytest.raises(InvalidInput, match="even size; 3 is odd"):
        mix(build(mixup=0.8), torch.zeros(3, 3, 24, 24), ONE_OF[:3])


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erased_rectangles_are_filled_as_asked_and_the_rest_is_left_alone(mode):
    augmentation = build(random_erasing=1.0, random_erasing_mode=mode)
    images = torch.full((32, 3, 24, 24), 7.0)
    made, _ = mix(augmentation, images, ONE_OF[[0] * 32])
    for image in made:
        filled = (image != 7).all(0)
        rows, columns = filled.any(1), filled.any(0)
        assert torch.equal(filled, rows.unsqueeze(1) & columns.unsqueeze(0))
        colors = image[:, filled]
        assert (len(colors[0].unique()) > 1) == (mode == "pixel")
        assert (colors == 0).all() == (mode == "const")


def test_simclr_draws_different_views():
    augmentation = build("simclr")
    batch = IMAGE.expand(2, -1, -1, -1)
    one, other = augment(augmentation, batch, numbers(augmentation, 2))
    assert not torch.equal(one, other)


def test_a_random_crop_that_does_not_fit_is_refused_before_training():
    with pytest.raises(
        InvalidInput, match="24 by 24 pixels does not fit into images resized to 20"
    ):
        build(crop="random", resize=20, padding=1)
    fits = build(crop="random", resize=20, padding=2)
    made = augment(fits, IMAGE[None], numbers(fits, 1))
    assert made.shape == (1, 3, 24, 24)


def test_padding_in_a_mirror_needs_an_image_that_is_larger():
    with pytest.raises(InvalidInput, match="resized to 24 pixels cannot be reflected 24 pixels"):
        build(crop="random", padding=24, padding_mode="reflect")
    mirrored = build(crop="random", padding=23, padding_mode="reflect")
    assert augment(mirrored, IMAGE[None], numbers(mirrored, 1)).shape == (1, 3, 24, 24)


@pytest.mark.parametrize("settings", [{"scale": (1.0, 0.1)}, {"ratio": (2, 1)}, {"blur_kernel": 4}])
def test_bad_settings_of_views_are_refused(settings):
    with pytest.raises(InvalidConfig):
        build("simclr", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"horizontal_flip": 1.5},
        {"mixup": -1},
        {"crop": "middle"},
        {"cutmx": 1},
        {"scale": (1, 0.1)},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidConfig):
        build(**settings)
