"""The augmentation of supervised training; with its defaults, none at all."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf
from vitarium.data.augmentations import _crops as crops
from vitarium.data.augmentations._color import JITTER_NUMBERS, jittered
from vitarium.data.augmentations._erasing import ERASING_NUMBERS, erased
from vitarium.data.augmentations._mixup import MIXING_NUMBERS, mix_batches
from vitarium.data.augmentations._rotation import rotated_images
from vitarium.data.augmentations.base import (
    Area,
    Augmentation,
    Numbers,
    Range,
    augmentation,
    channels,
)
from vitarium.data.augmentations.policies.base import Policy

Probability = Field(0.0, ge=0, le=1)


class Standard(Config):
    """In the order in which it is applied; `resize` and the middle alone when images are scored."""

    resize: PositiveInt | None = None
    """Length of the shorter side, in pixels, to which an image is resized before the crop; none:
    it just covers the model's image size."""
    interpolation: crops.Interpolation = "bilinear"
    """Interpolation of pixels when images are resized."""
    crop: Literal["center", "random", "random_resized"] = "center"
    """Crop of each training image: its center, a random position, or a random position, size and
    aspect ratio (random_resized)."""
    padding: NonNegativeInt = 0
    """Pixels added on each side before a random crop."""
    padding_mode: crops.PaddingMode = "constant"
    """Pixels that are added: black ones (constant), or the image's own in a mirror, without its
    edge (reflect); then the image has to be larger than the padding."""
    scale: Area = (0.08, 1.0)
    """Smallest and largest area of a random_resized crop, as a share of the image's area."""
    ratio: Range = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of a random_resized crop: width over height. It is resized
    to the model's images: where these are not square, choose the ratio around theirs."""
    horizontal_flip: float = Probability
    """Probability of a horizontal flip."""
    rotation: NonNegativeFloat = 0.0
    """Largest random rotation in either direction, in degrees."""
    color_jitter: NonNegativeFloat = 0.0
    """Strength of the random changes of brightness, contrast and saturation: each is multiplied by
    1 plus or minus up to this."""
    policy: Annotated[Section, SectionOf("policy")] | None = None
    """Random operations on each image after the crop and the flip: randaugment, trivialaugment,
    autoaugment, augmix or three_augment, a name or a mapping with a name; none: no operations."""
    random_erasing: float = Probability
    """Probability that a random rectangle of the image is erased (Zhong et al. 2020, as in
    timm)."""
    random_erasing_mode: Literal["const", "rand", "pixel"] = "const"
    """What fills an erased rectangle: the mean color (const), one random color (rand), or noise
    (pixel)."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup (Zhang et al. 2018), the parameter of its beta distribution; 0: no mixup. If
    cutmix is set, too, each batch is mixed by one of them."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of CutMix (Yun et al. 2019), the parameter of its beta distribution; 0: no CutMix."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """Whether the mixing ratio is drawn once per batch, per pair of images, or per image (elem)."""
    repeats: PositiveInt = 1
    """Times that each image is in a batch, augmented anew each time (Hoffer et al. 2020); an epoch
    then sees so many fewer of the images."""


@augmentation(
    "standard",
    tiny={
        "crop": "random_resized",
        "horizontal_flip": 0.5,
        "rotation": 10,
        "color_jitter": 0.3,
        "random_erasing": 0.5,
        "random_erasing_mode": "pixel",
        "mixup": 0.8,
        "cutmix": 1.0,
        "mixup_mode": "elem",
        "policy": {"name": "randaugment"},
    },
)
def standard(config: Standard, input_size: tuple[int, int, int], num_classes: int) -> Augmentation:
    """Crops, flips, rotation, color jitter, random erasing, mixup, CutMix; off by default."""
    count, *size = input_size
    cropped = (size[0], size[1])
    shorter = config.resize or min(cropped)
    if config.crop == "random" and shorter + 2 * config.padding < min(cropped):
        raise InvalidInput(
            f"a random crop of {cropped[0]} by {cropped[1]} pixels does not fit into images "
            f"resized to {shorter} and padded by {config.padding}; choose larger resize or padding"
        )
    reflects = config.crop == "random" and config.padding_mode == "reflect"
    if reflects and shorter <= config.padding:
        raise InvalidInput(
            f"images resized to {shorter} pixels cannot be reflected {config.padding} pixels "
            "beyond their edges; choose a smaller padding or a larger resize"
        )
    policy: Policy | None = config.policy() if config.policy else None
    numbers = Numbers(
        crop=crops.CROP_NUMBERS,
        flip=1,
        rotation=1,
        jitter=JITTER_NUMBERS,
        erasing=ERASING_NUMBERS,
        mixing=MIXING_NUMBERS,
        **({"policy": policy.numbers} if policy else {}),  # last: the others stay what they are
    )

    def frame(drawn: Tensor, height: int, width: int) -> crops.Frame:
        crop, flip = numbers(drawn, "crop"), numbers(drawn, "flip").squeeze(1)
        flipped = flip < config.horizontal_flip if config.horizontal_flip else None
        if config.crop == "random_resized":
            return crops.random_resized_crops(
                (height, width),
                cropped,
                scale=config.scale,
                ratio=config.ratio,
                numbers=crop,
                interpolation=config.interpolation,
                flipped=flipped,
            )
        return crops.resized_crops(
            (height, width),
            cropped,
            shorter=config.resize,
            interpolation=config.interpolation,
            padding=config.padding if config.crop == "random" else 0,
            padding_mode=config.padding_mode if config.crop == "random" else "constant",
            crop_numbers=crop[:, :2] if config.crop == "random" else None,
            flipped=flipped,
        )

    def plain(height: int, width: int) -> crops.Frame:
        return crops.resized_crops(
            (height, width), cropped, shorter=config.resize, interpolation=config.interpolation
        )

    def change(images: Tensor, drawn: Tensor) -> Tensor:
        if policy:
            images = policy.apply(images, numbers(drawn, "policy"))
        if config.rotation:
            degrees = (2 * numbers(drawn, "rotation").squeeze(1) - 1) * config.rotation
            images = rotated_images(images, degrees)
        if config.color_jitter:
            strengths = dict.fromkeys(("brightness", "contrast", "saturation"), config.color_jitter)
            images = jittered(images, numbers(drawn, "jitter"), **strengths)
        return channels(images, count)

    def mix(images: Tensor, targets: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        if config.random_erasing:
            images = erased(
                images.flatten(0, 1),
                numbers(drawn, "erasing").flatten(0, 1),
                config.random_erasing,
                config.random_erasing_mode,
            ).unflatten(0, images.shape[:2])
        if config.mixup or config.cutmix:
            images, targets = mix_batches(
                images,
                targets,
                numbers(drawn, "mixing"),
                mixup=config.mixup,
                cutmix=config.cutmix,
                mode=config.mixup_mode,
            )
        return images, targets

    return Augmentation(numbers.total, frame, plain, change, mix, config.repeats)
