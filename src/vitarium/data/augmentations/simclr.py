"""SimCLR's augmentation: drawn twice, it gives two views of an image."""

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data.augmentations import _color as color
from vitarium.data.augmentations import _crops as crops
from vitarium.data.augmentations.base import (
    Area,
    Augmentation,
    Numbers,
    Range,
    augmentation,
    channels,
    unmixed,
)


class SimclrViews(Config):
    """In the order in which it is applied; `resize` and the middle alone when images are scored."""

    resize: PositiveInt | None = None
    """Length of the shorter side, in pixels, when features are scored; none: the model's image
    size."""
    scale: Area = (0.08, 1.0)
    """Smallest and largest area of the random crop, as a share of the image's area."""
    ratio: Range = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of the random crop: width over height."""
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: NonNegativeFloat = 0.8
    """Strength of the random changes of brightness, contrast and saturation: each is multiplied by
    1 plus or minus up to this."""
    hue: float = Field(0.2, ge=0, le=0.5)
    """Strength of the random change of hue, as a share of the color circle, at most 0.5."""
    color_jitter_probability: float = Field(0.8, ge=0, le=1)
    """Probability that brightness, contrast, saturation and hue are changed."""
    grayscale: float = Field(0.2, ge=0, le=1)
    """Probability that the image becomes gray."""
    blur: float = Field(0.5, ge=0, le=1)
    """Probability of a Gaussian blur, with a standard deviation of 0.1 to 2 pixels."""
    blur_kernel: PositiveInt | None = None
    """Kernel size of the blur, in pixels, an odd number; none: about a tenth of the image."""

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError("a kernel with a middle has an odd size")
        return kernel


_SIGMA = (0.1, 2.0)


@augmentation(
    "simclr",
    paper="Chen et al. 2020, arXiv 2002.05709, App. A",
    tiny={"color_jitter_probability": 1.0, "grayscale": 0.5, "blur_kernel": 3},
)
def simclr_views(
    config: SimclrViews, input_size: tuple[int, int, int], num_classes: int
) -> Augmentation:
    """SimCLR's augmentation: random resized crops, flips, color jitter, grayscale and blur."""
    count, height, width = input_size
    kernel = config.blur_kernel or max(3, height // 10 // 2 * 2 + 1)
    crop, jittering = crops.CROP_NUMBERS, color.JITTER_NUMBERS
    numbers = Numbers(crop=crop, flip=1, jitters=1, jitter=jittering, gray=1, blurs=1, sigma=1)

    def frame(drawn: Tensor, high: int, wide: int) -> crops.Frame:
        flipped = numbers(drawn, "flip").squeeze(1) < config.horizontal_flip
        return crops.random_resized_crops(
            (high, wide),
            (height, width),
            scale=config.scale,
            ratio=config.ratio,
            numbers=numbers(drawn, "crop"),
            flipped=flipped,
        )

    def plain(high: int, wide: int) -> crops.Frame:
        return crops.resized_crops((high, wide), (height, width), shorter=config.resize)

    def change(images: Tensor, drawn: Tensor) -> Tensor:
        def jitter(images: Tensor, which: Tensor) -> Tensor:
            strengths = dict.fromkeys(("brightness", "contrast", "saturation"), config.color_jitter)
            chosen = numbers(drawn, "jitter")[which]
            return color.jittered(images, chosen, **strengths, hue=config.hue)

        def blur(images: Tensor, which: Tensor) -> Tensor:
            low, high = _SIGMA
            sigmas = low + (high - low) * numbers(drawn, "sigma")[which, 0]
            return color.blurred(images, sigmas, kernel)

        for name, probability, changed in (
            ("jitters", config.color_jitter_probability, jitter),
            ("gray", config.grayscale, lambda images, _: channels(images, 1).expand_as(images)),
            ("blurs", config.blur, blur),
        ):
            images = color.apply_randomly(images, numbers(drawn, name), probability, changed)
        return channels(images, count)

    return Augmentation(numbers.total, frame, plain, change, unmixed)
