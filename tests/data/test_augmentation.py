"""Augmentation: every setting reaches the library that applies it, and does what it says."""

import pytest
import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing

from vitarium import seeds
from vitarium.config import InvalidConfig
from vitarium.data import standard as module
from vitarium.errors import InvalidInput
from vitarium.registry import section

IMAGE = torch.arange(3 * 40 * 60).reshape(3, 40, 60).remainder(256).to(torch.uint8)


def build(name="standard", size=(3, 24, 24), **settings):
    return section("augmentation", {"name": name, **settings})(size, 10)


def test_without_settings_training_sees_what_scoring_sees():
    augmentation = build()
    assert torch.equal(augmentation.train(IMAGE), augmentation.evaluate(IMAGE))
    images, targets = torch.randn(4, 3, 24, 24), torch.eye(10)[:4]
    mixed, mixed_targets = augmentation.mix(images.clone(), targets)
    assert torch.equal(mixed, images)
    assert torch.equal(mixed_targets, targets)


@pytest.mark.parametrize("crop", ["center", "random", "random_resized"])
@pytest.mark.parametrize("size", [(3, 24, 24), (1, 32, 32), (3, 48, 48)])
def test_every_image_becomes_the_models_size(crop, size):
    augmentation = build(size=size, crop=crop, horizontal_flip=0.5, rotation=10, color_jitter=0.3)
    for step in (augmentation.train, augmentation.evaluate):
        made = step(IMAGE)
        assert made.shape == size
        assert made.dtype == torch.uint8


def test_gray_images_are_repeated_for_a_model_that_takes_colour():
    made = build().evaluate(IMAGE[:1])
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_scoring_resizes_the_shorter_side_and_takes_the_middle():
    from torchvision.transforms.v2 import functional as F

    expected = F.center_crop(F.resize(IMAGE, 30, antialias=True), [24, 24])
    assert torch.equal(build(resize=30).evaluate(IMAGE), expected)


def test_scoring_a_batch_is_scoring_its_images():
    batch = torch.stack([IMAGE, IMAGE.flip(2)])
    evaluate = build(resize=30).evaluate
    assert torch.equal(evaluate(batch), torch.stack([evaluate(image) for image in batch]))


def test_a_flip_happens_as_often_as_its_probability():
    flip = build(size=(3, 40, 40), horizontal_flip=0.3)
    image = IMAGE[:, :, :40]
    with seeds.seeded(0):
        flipped = sum(torch.equal(flip.train(image), image.flip(2)) for _ in range(1000))
    assert 250 < flipped < 350


def test_a_random_crop_reaches_every_place_of_the_padded_image():
    crop = build(size=(1, 8, 8), crop="random", padding=2)
    image = torch.arange(1, 65).reshape(1, 8, 8).to(torch.uint8)
    with seeds.seeded(0):
        corners = {crop.train(image)[0, 4, 4].item() for _ in range(500)}
    assert len(corners) == 25


def test_mixup_cutmix_and_erasing_reach_timm_with_the_values_of_the_file(monkeypatch):
    seen = {}

    def record(kind, name):
        class Recorded(kind):
            def __init__(self, **settings):
                seen[name] = settings
                super().__init__(**settings)

        return Recorded

    monkeypatch.setattr(module, "Mixup", record(Mixup, "mixup"))
    monkeypatch.setattr(module, "RandomErasing", record(RandomErasing, "erasing"))
    mixing = {"mixup": 0.8, "cutmix": 1.0, "mixup_mode": "elem"}  # none of them a default
    augmentation = build(**mixing, random_erasing=0.25, random_erasing_mode="pixel")
    augmentation.mix(torch.zeros(2, 3, 24, 24), torch.eye(10)[:2])
    mixup = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.0, "mode": "elem"}
    assert seen["mixup"] == {**mixup, "num_classes": 10}
    assert seen["erasing"] == {"probability": 0.25, "mode": "pixel", "device": "cpu"}


@pytest.mark.parametrize("settings", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1}])
def test_mixed_targets_are_shares_of_two_classes(settings):
    images, targets = torch.randn(8, 3, 24, 24), torch.eye(10)[:8]
    with seeds.seeded(3):
        _, mixed = build(**settings).mix(images, targets)
    assert torch.allclose(mixed.sum(1), torch.ones(8))
    assert ((mixed > 0).sum(1) <= 2).all()
    partner = targets.flip(0)
    share = (mixed * targets).sum(1, keepdim=True)
    assert torch.allclose(mixed, share * targets + (1 - share) * partner)


def test_mixup_mixes_pixels_with_the_share_of_the_targets():
    images, targets = torch.randn(8, 3, 24, 24), torch.eye(10)[:8]
    with seeds.seeded(1):
        mixed, shares = build(mixup=0.8).mix(images.clone(), targets)
    share = shares[0, 0].item()
    assert 0 < share < 1
    assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-6)


def test_random_erasing_erases_as_often_as_its_probability():
    images = torch.ones(400, 1, 24, 24)
    with seeds.seeded(0):
        erased, _ = build(size=(1, 24, 24), random_erasing=0.25).mix(
            images.clone(), torch.eye(10)[torch.zeros(400, dtype=int)]
        )
    touched = (erased != 1).flatten(1).any(1)
    assert 0.18 < touched.float().mean() < 0.32
    areas = (erased == 0).flatten(1).float().mean(1)[touched]
    assert areas.min() > 0.01
    assert areas.max() < 0.4


def test_simclr_draws_different_views():
    augmentation = build("simclr")
    with seeds.seeded(0):
        assert not torch.equal(augmentation.train(IMAGE), augmentation.train(IMAGE))


def test_mixing_refuses_batches_whose_images_make_no_pairs():
    with pytest.raises(InvalidInput, match="even size; 3 is odd"):
        build(mixup=0.8).mix(torch.zeros(3, 3, 24, 24), torch.eye(10)[:3])


def test_a_random_crop_that_does_not_fit_is_refused_before_training():
    with pytest.raises(
        InvalidInput, match="24 by 24 pixels does not fit into images resized to 20"
    ):
        build(crop="random", resize=20, padding=1)
    assert build(crop="random", resize=20, padding=2).train(IMAGE).shape == (3, 24, 24)


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
