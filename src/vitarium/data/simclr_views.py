"""SimCLR's augmentation: drawn twice, it gives two views of an image."""

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator
from torchvision.transforms import v2

from vitarium.config import Config
from vitarium.data.augmentation import (
    Augmentation,
    Range,
    centre,
    channels,
    compose,
    resize,
    unmixed,
)
from vitarium.registry import augmentation


class SimclrViews(Config):
    """In the order in which it is applied; `resize` and the middle alone when images are scored."""

    resize: PositiveInt | None = None
    """Shorter side, in pixels, when images are scored; None: the model's image size."""
    scale: Range = (0.08, 1.0)
    """Area of the crop, as a share of the image's."""
    ratio: Range = (3 / 4, 4 / 3)
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    color_jitter: NonNegativeFloat = 0.8
    """Strength of random changes of brightness, contrast and saturation."""
    hue: float = Field(0.2, ge=0, le=0.5)
    """Strength of random changes of hue, which go with those."""
    color_jitter_probability: float = Field(0.8, ge=0, le=1)
    grayscale: float = Field(0.2, ge=0, le=1)
    blur: float = Field(0.5, ge=0, le=1)
    """Probability of a Gaussian blur with a sigma of 0.1 to 2 pixels."""
    blur_kernel: PositiveInt | None = None
    """Odd; None: about a tenth of the image."""

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError("a kernel with a middle has an odd size")
        return kernel


@augmentation("simclr", config=SimclrViews, paper="Chen et al. 2020, arXiv 2002.05709, App. A")
def simclr_views(
    config: SimclrViews, input_size: tuple[int, int, int], num_classes: int
) -> Augmentation:
    """Random resized crops, flips, colours, gray and blur, as SimCLR has them."""
    count, height, width = input_size
    strength = config.color_jitter
    jitter = v2.ColorJitter(strength, strength, strength, config.hue)
    kernel = config.blur_kernel or max(3, height // 10 // 2 * 2 + 1)
    return Augmentation(
        train=compose(
            v2.RandomResizedCrop(
                (height, width), scale=config.scale, ratio=config.ratio, antialias=True
            ),
            v2.RandomHorizontalFlip(config.horizontal_flip) if config.horizontal_flip else None,
            v2.RandomApply([jitter], config.color_jitter_probability)
            if config.color_jitter_probability
            else None,
            v2.RandomGrayscale(config.grayscale) if config.grayscale else None,
            v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], config.blur)
            if config.blur
            else None,
            channels(count),
        ),
        evaluate=compose(
            resize(config.resize or min(height, width)), centre(height, width), channels(count)
        ),
        mix=unmixed,
    )
