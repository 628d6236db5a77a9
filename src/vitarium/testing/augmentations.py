"""The contract of augmentations."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.data._image_settings import covering
from vitarium.data.augmentations.base import Augmentation
from vitarium.data.augmentations.policies.base import Policy
from vitarium.data.preprocessing import Preprocessing
from vitarium.testing._rules import Contract

_CLASSES = 10
_SIZES = ((3, 24, 24), (1, 32, 32), (3, 48, 64))


def check_augmentation(name: str, **settings: Any) -> None:
    """Test that an augmentation keeps to its contract (`data/augmentations/base.py`).

    With its defaults and with its `tiny` settings, for images larger and smaller than the model's:
    sizes and range of what comes out, the same from the same numbers, the same in a batch of any
    size, the same beside other models, and targets that sum to one.
    """
    rule = Contract("augmentation", name, settings)
    for section in (choose("augmentation", name), rule.section):
        for size in _fitting_sizes(rule, section):
            augmentation: Augmentation = section(size, _CLASSES)
            _check_images(rule, augmentation, size)
            if not section.facts["own_plain"]:
                _check_plain(rule, augmentation, section.config, size)
        _check_mixing(rule, section(_SIZES[0], _CLASSES), _SIZES[0])


def _fitting_sizes(rule: Contract, section: Section) -> list[tuple[int, int, int]]:
    """Those that it does not refuse: not all go with images of one channel."""
    fitting = []
    for size in _SIZES:
        with suppress(InvalidInput):
            section(size, _CLASSES)
            fitting.append(size)
    rule(_SIZES[0] in fitting, f"it refuses images of {_SIZES[0]}")
    return fitting


def _check_images(rule: Contract, augmentation: Augmentation, size: tuple[int, int, int]) -> None:
    image = torch.arange(3 * 40 * 60).reshape(3, 40, 60).remainder(256).to(torch.uint8)
    batch = torch.stack([image, image.flip(2), 255 - image, image.flip(1)] * 2)
    numbers = _drawn(augmentation, len(batch))
    augmented = _augmented(augmentation, batch, numbers)
    holds = augmented.shape == (len(batch), *size)
    rule(holds, f"training images become {tuple(augmented.shape[1:])}, not {size}")
    holds = float(augmented.min()) >= 0 and float(augmented.max()) <= 1
    rule(holds, "training images leave [0, 1] before they are normalized")
    holds = torch.equal(augmented, _augmented(augmentation, batch, numbers))
    rule(holds, "the same numbers have to give the same images; draw nothing")
    singly = [
        _augmented(augmentation, batch[i : i + 1], numbers[i : i + 1]) for i in range(len(batch))
    ]
    holds = torch.allclose(augmented, torch.cat(singly), atol=1e-5)
    rule(holds, "an image becomes another one in another batch")
    scored = augmentation.plain(*batch.shape[-2:]).cut(batch)
    holds = scored.shape == (len(batch), 3, *size[1:])
    rule(holds, f"images to score become {tuple(scored.shape[1:])}, not {(3, *size[1:])}")


def _check_plain(
    rule: Contract, augmentation: Augmentation, config: Any, size: tuple[int, int, int]
) -> None:
    resize, interpolation = getattr(config, "resize", None), getattr(config, "interpolation", None)
    preprocessing = Preprocessing(size, resize or covering(size[1:]), interpolation or "bilinear")
    image = torch.arange(3 * 40 * 60).reshape(1, 3, 40, 60).remainder(256).to(torch.uint8)
    frames = [made.plain(40, 60).cut(image) for made in (augmentation, preprocessing.frames())]
    holds = torch.equal(*frames)
    rule(holds, "images to score are not resized and cropped as usual; register own_plain=True")


def _check_mixing(rule: Contract, augmentation: Augmentation, size: tuple[int, int, int]) -> None:
    """Of three models' batches of eight images."""
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(3, 8, *size, generator=stream)
    targets = torch.eye(_CLASSES)[torch.randint(_CLASSES, (3, 8), generator=stream)]
    numbers = _drawn(augmentation, 3, 8)
    mixed, mixed_targets = augmentation.mix(images.clone(), targets.clone(), numbers)
    holds = mixed.shape == images.shape and mixed_targets.shape == targets.shape
    rule(holds, "mixing changes the shape of images or targets")
    holds = torch.allclose(mixed_targets.sum(-1), torch.ones(3, 8), atol=1e-5)
    rule(holds, "targets do not sum to one after mixing")
    for k in range(3):
        model_images, model_targets = augmentation.mix(
            images[k : k + 1].clone(), targets[k : k + 1].clone(), numbers[k : k + 1]
        )
        rule(
            torch.allclose(mixed[k], model_images[0], atol=1e-5)
            and torch.allclose(mixed_targets[k], model_targets[0], atol=1e-5),
            "a model's batch becomes another one beside other models' batches",
        )


def _drawn(augmentation: Augmentation, *shape: int) -> Tensor:
    """Numbers in [0, 1), float64 [*shape, augmentation.numbers]."""
    stream = torch.Generator().manual_seed(0)
    return torch.rand(*shape, augmentation.numbers, dtype=torch.float64, generator=stream)


def _augmented(augmentation: Augmentation, images: Tensor, numbers: Tensor) -> Tensor:
    """uint8 [n, c, h, w] -> float [n, *input_size]"""
    return augmentation.change(augmentation.frame(numbers, *images.shape[-2:]).cut(images), numbers)


def check_policy(name: str, **settings: Any) -> None:
    """Test that a policy keeps to its contract (`data/augmentations/policies/base.py`).

    Images of its input's shape, in [0, 1], for gray and RGB; the same from the same numbers; the
    same in a batch of any size; and it changes most images.
    """
    rule = Contract("policy", name, settings)
    policy: Policy = rule.section()
    stream = torch.Generator().manual_seed(0)
    numbers = torch.rand(24, policy.numbers, dtype=torch.float64, generator=stream)
    for count in (1, 3):
        images = torch.rand(24, count, 16, 20, generator=stream)
        changed = policy.apply(images.clone(), numbers)
        rule(changed.shape == images.shape, f"images become {tuple(changed.shape[1:])}")
        in_range = float(changed.min()) >= 0 and float(changed.max()) <= 1
        rule(in_range, "images leave [0, 1]")
        again = policy.apply(images.clone(), numbers)
        rule(torch.equal(changed, again), "the same numbers have to give the same images")
        singly = [policy.apply(images[i : i + 1], numbers[i : i + 1]) for i in range(len(images))]
        alike = torch.allclose(changed, torch.cat(singly), atol=1e-5)
        rule(alike, "an image becomes another one in another batch")
        if count == 3:
            share = (changed != images).flatten(1).any(1).float().mean()
            rule(share > 0.5, f"it changes {share:.0%} of the images")
