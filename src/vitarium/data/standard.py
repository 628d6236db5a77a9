"""The augmentation of supervised training; with its defaults, none at all."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

from vitarium.config import Config
from vitarium.data.augmentation import (
    Augmentation,
    Range,
    Transform,
    centre,
    channels,
    compose,
    resize,
    unmixed,
)
from vitarium.errors import InvalidInput
from vitarium.registry import augmentation

Probability = Field(0.0, ge=0, le=1)


class Standard(Config):
    """In the order in which it is applied; `resize` and the middle alone when images are scored."""

    resize: PositiveInt | None = None
    """Shorter side, in pixels, before the crop; None: the model's image size."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    crop: Literal["center", "random", "random_resized"] = "center"
    padding: NonNegativeInt = 0
    """Black pixels around the image before a random crop."""
    scale: Range = (0.08, 1.0)
    """Area of a random_resized crop, as a share of the image's."""
    ratio: Range = (3 / 4, 4 / 3)
    """Width over height of a random_resized crop."""
    horizontal_flip: float = Probability
    rotation: NonNegativeFloat = 0.0
    """Up to so many degrees, either way."""
    color_jitter: NonNegativeFloat = 0.0
    """Strength of random changes of brightness, contrast and saturation."""
    random_erasing: float = Probability
    """Probability that a rectangle of the image is erased (Zhong et al. 2020, as timm has it)."""
    random_erasing_mode: Literal["const", "rand", "pixel"] = "const"
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup; with cutmix too, each batch is mixed by one of them."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of cutmix."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """Whether the strength is drawn per batch, per pair of images, or per image."""


@augmentation("standard", config=Standard)
def standard(config: Standard, input_size: tuple[int, int, int], num_classes: int) -> Augmentation:
    """Crops, flips, rotation, colours, erasing, mixup and cutmix; none unless set.

    Raises InvalidInput where a random crop does not fit into the resized and padded image.
    """
    count, height, width = input_size
    shorter = config.resize or min(height, width)
    if config.crop == "random" and shorter + 2 * config.padding < min(height, width):
        raise InvalidInput(
            f"a random crop of {height} by {width} pixels does not fit into images resized to "
            f"{shorter} and padded by {config.padding}; choose a larger resize or padding"
        )
    fit = resize(shorter, config.interpolation)
    return Augmentation(
        train=compose(
            None if config.crop == "random_resized" else fit,
            _crop(config, height, width),
            v2.RandomHorizontalFlip(config.horizontal_flip) if config.horizontal_flip else None,
            _rotation(config),
            _jitter(config),
            channels(count),
        ),
        evaluate=compose(fit, centre(height, width), channels(count)),
        mix=_Mix(config, num_classes) if _mixes(config) or config.random_erasing else unmixed,
    )


def _crop(config: Standard, height: int, width: int) -> Transform:
    if config.crop == "center":
        return centre(height, width)
    if config.crop == "random":
        return v2.RandomCrop((height, width), padding=config.padding or None)
    return v2.RandomResizedCrop(
        (height, width),
        scale=config.scale,
        ratio=config.ratio,
        interpolation=v2.InterpolationMode(config.interpolation),
        antialias=True,
    )


def _rotation(config: Standard) -> Transform | None:
    if not config.rotation:
        return None
    smooth = v2.InterpolationMode.BILINEAR
    return v2.RandomRotation(config.rotation, interpolation=smooth)


def _jitter(config: Standard) -> Transform | None:
    s = config.color_jitter
    return v2.ColorJitter(brightness=s, contrast=s, saturation=s) if s else None


def _mixes(config: Standard) -> bool:
    return bool(config.mixup or config.cutmix)


class _Mix:
    """Random erasing, then mixup or cutmix, on whole batches, by timm."""

    def __init__(self, config: Standard, num_classes: int) -> None:
        self.config = config
        # Label smoothing belongs to the objective: smoothing and mixing commute.
        self.mixup = (
            Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                mode=config.mixup_mode,
                label_smoothing=0.0,
                num_classes=num_classes,
            )
            if _mixes(config)
            else None
        )

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.random_erasing:
            erase = RandomErasing(
                probability=self.config.random_erasing,
                mode=self.config.random_erasing_mode,
                device=str(images.device),
            )
            images = erase(images)
        if self.mixup:
            if len(images) % 2:  # timm pairs a batch's images with each other
                raise InvalidInput(
                    f"mixup and cutmix need batches of an even size; {len(images)} is odd"
                )
            images, targets = self.mixup(images, targets.argmax(1))
        return images, targets
