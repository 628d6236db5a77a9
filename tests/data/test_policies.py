"""Policies of augmentation, against torchvision's."""

from collections import Counter

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from vitarium.core.registry import choose, plugins
from vitarium.data.augmentations.policies import _operations as operations
from vitarium.testing import check_policy

MAGNITUDES = {
    "shear_x": 0.2,
    "shear_y": -0.3,
    "translate_x": 0.2,
    "translate_y": -0.3,
    "rotate": 25.0,
    "brightness": 0.6,
    "color": -0.5,
    "contrast": 0.7,
    "sharpness": 0.8,
    "posterize": 4,
    "solarize": 0.4,
    "autocontrast": 0.0,
    "equalize": 0.0,
    "invert": 0.0,
}
THEIR_NAMES = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "autocontrast": "AutoContrast",
}


@pytest.mark.parametrize("name", plugins("policy"))
def test_contract(name):
    check_policy(name)


@pytest.mark.parametrize("name", MAGNITUDES)
@pytest.mark.parametrize("count", [1, 3])
def test_each_operation_is_torchvisions(name, count):
    images = torch.rand(4, count, 24, 32, generator=torch.Generator().manual_seed(0))
    images[3] = 0.5  # a single value
    magnitude = MAGNITUDES[name]
    changed = operations.OPERATIONS[name](images, torch.full((4,), magnitude).double())
    transform = v2.RandAugment()
    if name.startswith("translate"):
        magnitude *= 32 if name.endswith("x") else 24
    their_name = THEIR_NAMES.get(name, name.capitalize())
    expected = transform._apply_image_or_video_transform(
        images, their_name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={}
    )
    # the nearest pixel of what lies between two may be either
    assert ((changed - expected).abs() < 1e-5).float().mean() > 0.995


def test_a_magnitude_is_each_images_own():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = operations.OPERATIONS["brightness"](images, torch.tensor([0.0, 0.5, -0.5]))
    for image, result, factor in zip(images, changed, (1.0, 1.5, 0.5), strict=True):
        assert torch.allclose(result, tv.adjust_brightness(image, factor))


def recorded(name, monkeypatch, count=4000, **settings):
    """How often each operation was applied, and all magnitudes of each."""
    applied, magnitudes = Counter(), {}

    def record(space, images, chosen, values):
        for number, value in zip(chosen.tolist(), values.tolist(), strict=True):
            if number >= 0:
                applied[space[number][0]] += 1
                magnitudes.setdefault(space[number][0], set()).add(round(value, 6))
        return images

    module = f"vitarium.data.augmentations.policies.{name}"
    plugins("policy")
    monkeypatch.setattr(f"{module}.apply_operations", record)
    policy = choose("policy", name, **settings)()
    numbers = torch.rand(
        count, policy.numbers, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    policy.apply(torch.zeros(count, 1, 1, 331), numbers)
    return applied, magnitudes


def test_randaugment_draws_evenly_with_torchvisions_magnitudes(monkeypatch):
    applied, magnitudes = recorded("randaugment", monkeypatch)
    reference = v2.RandAugment()._AUGMENTATION_SPACE
    assert len(applied) == len(reference) == 14
    assert all(abs(count / 8000 - 1 / 14) < 0.02 for count in applied.values())
    for their_name, (values, is_signed) in reference.items():
        name = {v: k for k, v in THEIR_NAMES.items()}.get(their_name, their_name.lower())
        expected = values(31, 331, 331)
        if expected is None:
            continue
        value = float(expected[9]) / (331 if "translate" in name else 1)
        assert magnitudes[name] == (
            {round(v, 6) for v in ((value, -value) if is_signed else (value,))}
        )


def test_trivialaugment_draws_all_magnitudes_of_the_wide_space(monkeypatch):
    _, magnitudes = recorded("trivialaugment", monkeypatch, count=20000)
    reference = v2.TrivialAugmentWide()._AUGMENTATION_SPACE
    for their_name, (values, is_signed) in reference.items():
        name = {v: k for k, v in THEIR_NAMES.items()}.get(their_name, their_name.lower())
        expected = values(31, 331, 331)
        if expected is None or name == "translate_y":  # of a height of one pixel
            continue
        size = 331 if "translate" in name else 1
        both = {
            round(float(v) * s / size, 6)
            for v in expected
            for s in ((1, -1) if is_signed else (1,))
        }
        assert {abs(m) for m in magnitudes[name]} == {abs(m) for m in both}


@pytest.mark.parametrize("learned_on", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_applies_operations_as_often_as_torchvisions_tables_say(
    monkeypatch, learned_on
):
    applied, _ = recorded("autoaugment", monkeypatch, count=8000, learned_on=learned_on)
    expected = Counter()
    for pair in v2.AutoAugment(v2.AutoAugmentPolicy(learned_on))._policies:
        for name, probability, _ in pair:
            expected[{v: k for k, v in THEIR_NAMES.items()}.get(name, name.lower())] += probability
    for name, count in expected.items():
        assert applied[name] / 8000 == pytest.approx(count / 25, abs=0.03)


def test_augmix_of_one_value_is_that_value():
    """Whatever the shares are, they sum to one: only operations change pixels."""
    policy = choose("policy", "augmix", severity=1)()
    numbers = torch.rand(50, policy.numbers, dtype=torch.float64)
    image = torch.full((50, 1, 8, 8), 0.5)
    monochrome = policy.apply(image, numbers)
    # of the first bin, operations leave an image of one value, but for equalize and autocontrast
    assert ((monochrome - 0.5).abs() < 0.51).all()
    assert ((monochrome - 0.5).abs() < 1e-5).flatten(1).all(1).float().mean() > 0.2


def test_three_augment_has_each_a_third():
    policy = choose("policy", "three_augment")()
    numbers = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0)).double()
    images = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).expand(
        3000, 3, 6, 6
    )
    changed = policy.apply(images, numbers)
    gray = (changed[:, 0] == changed[:, 1]).flatten(1).all(1)
    solarized = (
        torch.isclose(changed, torch.where(images < 0.5, images, 1 - images)).flatten(1).all(1)
    )
    assert gray.float().mean() == pytest.approx(1 / 3, abs=0.03)
    assert solarized.float().mean() == pytest.approx(1 / 3, abs=0.03)
    assert not (gray & solarized).any()
