"""Full-modality masking: which channels are hidden, how often, and what else stays."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.data.augmentations.modality_masking import hidden_channels

SIZE = (4, 8, 8)


def augmentation(size=SIZE, **settings):
    return choose("augmentation", "modality_masking", **settings)(size, 3)


def drawn(augmentation, *shape):
    stream = torch.Generator().manual_seed(0)
    return torch.rand(*shape, augmentation.numbers, dtype=torch.float64, generator=stream)


def hidden(images):
    """Which channels are 0: bool [k, n, c]"""
    return (images == 0).all(-1).all(-1)


def mixed(chosen, count=600):
    images = torch.randn(2, count, *SIZE)
    numbers = drawn(chosen, 2, count)
    targets = torch.zeros(2, count, 3)
    masked, same = chosen.mix(images.clone(), targets, numbers)
    assert torch.equal(same, targets)
    seen = ~hidden(masked)
    assert torch.equal(masked[seen], images[seen])
    return hidden(masked)


def test_exactly_one_modality_of_each_view_is_hidden_each_as_often():
    which = mixed(augmentation())
    assert (which.sum(-1) == 1).all()
    shares = which.float().mean((0, 1))
    assert (shares - 0.25).abs().max() < 0.05


def test_a_modality_of_several_channels_is_hidden_as_one():
    which = mixed(augmentation(modalities=[3, 1]))
    colors, depth = which[..., :3], which[..., 3]
    assert torch.equal(colors.all(-1), colors.any(-1))
    assert torch.equal(colors.all(-1), ~depth)
    assert 0.4 < depth.float().mean() < 0.6


def test_the_probability_is_that_of_a_view_to_lose_one():
    assert 0.2 < mixed(augmentation(probability=0.3)).any(-1).float().mean() < 0.4
    assert not mixed(augmentation(probability=0)).any()


def test_a_number_just_below_one_is_the_last_modality():
    groups = torch.tensor([0, 1, 2])
    last = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert hidden_channels(groups, last, 1.0).tolist() == [False, False, True]


def test_what_comes_before_is_the_other_augmentation():
    settings = {"crop": "random_resized", "horizontal_flip": 0.5, "repeats": 2}
    before = choose("augmentation", "standard", **settings)(SIZE, 3)
    chosen = augmentation(views={"name": "standard", **settings})
    images = torch.randint(0, 256, (6, 4, 12, 10), dtype=torch.uint8)
    numbers = drawn(chosen, 6)
    framed = before.frame(numbers[:, : before.numbers], 12, 10).cut(images)
    assert torch.equal(chosen.frame(numbers, 12, 10).cut(images), framed)
    assert torch.equal(
        chosen.change(framed, numbers), before.change(framed, numbers[:, : before.numbers])
    )
    assert chosen.repeats == 2


def test_what_a_recipe_asks_of_an_augmentation_is_that_of_the_other():
    views = {"name": "standard", "mixup": 0.2, "cutmix": 0.4, "repeats": 3, "resize": 9}
    config = choose("augmentation", "modality_masking", views=views).config
    assert (config.mixup, config.cutmix, config.repeats, config.resize) == (0.2, 0.4, 3, 9)
    assert config.interpolation == "bilinear"


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        ((1, 8, 8), {}, "would hide all of an image of one modality"),
        (SIZE, {"modalities": [4]}, "would hide all of an image of one modality"),
        (SIZE, {"modalities": [3, 2]}, "have 3 \\+ 2 channels, and the images 4"),
    ],
)
def test_modalities_that_do_not_fit_are_refused(size, settings, message):
    with pytest.raises(InvalidInput, match=message):
        augmentation(size, **settings)


def test_a_modality_has_channels():
    with pytest.raises(InvalidConfig, match="greater than 0"):
        augmentation(modalities=[4, 0])
