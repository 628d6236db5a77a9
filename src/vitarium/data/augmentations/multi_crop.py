"""DINO's augmentation: two large crops of an image, and several small ones beside them."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data.augmentations import _color as color
from vitarium.data.augmentations import _crops as crops
from vitarium.data.augmentations.base import (
    Area,
    Augmentation,
    Numbers,
    OtherViews,
    Probability,
    Range,
    augmentation,
    channels,
    unmixed,
)


class MultiCrop(Config):
    """In the order in which it is applied; `resize` and the middle alone when images are scored."""

    resize: PositiveInt | None = None
    """Length of the shorter side, in pixels, when features are scored; none: the model's image
    size."""
    interpolation: crops.Interpolation = "bicubic"
    """How crops are resized, and images that are scored."""
    global_scale: Area = (0.4, 1.0)
    """Smallest and largest area of the two global crops, as a share of the image's area."""
    local_crops: NonNegativeInt = 8
    """Number of local crops of each image, the small ones."""
    local_size: PositiveInt | None = None
    """Height and width of local crops, in pixels, which patches have to divide; none: 3/7 of the
    model's image size, to the nearest multiple of 4 (96 pixels of 224)."""
    local_scale: Area = (0.05, 0.4)
    """Smallest and largest area of local crops, as a share of the image's area."""
    ratio: Range = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of all crops: width over height."""
    horizontal_flip: Probability = 0.5
    """Probability of a horizontal flip."""
    color_jitter: NonNegativeFloat = 0.4
    """Strength of the random changes of brightness and contrast: each is multiplied by 1 plus or
    minus up to this."""
    saturation: NonNegativeFloat = 0.2
    """Strength of the random change of saturation, likewise."""
    hue: float = Field(0.1, ge=0, le=0.5)
    """Strength of the random change of hue, as a share of the color circle, at most 0.5."""
    color_jitter_probability: Probability = 0.8
    """Probability that brightness, contrast, saturation and hue are changed."""
    grayscale: Probability = 0.2
    """Probability that the image becomes gray."""
    global_blur: tuple[Probability, Probability] = (1.0, 0.1)
    """Probability of a Gaussian blur of the first and of the second global crop, with a standard
    deviation of 0.1 to 2 pixels."""
    local_blur: Probability = 0.5
    """Probability of such a blur of a local crop."""
    global_solarize: tuple[Probability, Probability] = (0.0, 0.2)
    """Probability that pixels from 128 of 255 on are inverted, in the first and in the second
    global crop."""
    undistorted: NonNegativeInt = 0
    """Size of further views, in sizes of the model: the global crops without changes of colors, for
    the teacher of Gram anchoring; 2 in DINOv3; 0: there are none."""


_SIGMA = (0.1, 2.0)
_THRESHOLD = 128 / 255
_NUMBERS = Numbers(
    crop=crops.CROP_NUMBERS,
    flip=1,
    jitters=1,
    jitter=color.JITTER_NUMBERS,
    gray=1,
    blurs=1,
    sigma=1,
    solarizes=1,
)


@augmentation(
    "multi_crop",
    paper="Caron et al. 2021, arXiv 2104.14294",
    tiny={"local_crops": 2, "local_size": 8, "undistorted": 2, "global_solarize": [0.5, 0.5]},
)
def multi_crop(
    config: MultiCrop, input_size: tuple[int, int, int], num_classes: int
) -> Augmentation:
    """DINO's multi-crop: two global crops, distorted unlike each other, and small local crops.

    Local crops are `batch.other_views["local"]`, [local_crops * batch, c, local_size, local_size];
    the undistorted global ones `["undistorted"]`, [2 * batch, c, undistorted * h, undistorted * w].
    """
    count, height, width = input_size
    side = config.local_size or local_size(min(height, width))
    views = tuple(
        _Crops(config, input_size, config.global_scale, blur, solarize)
        for blur, solarize in zip(config.global_blur, config.global_solarize, strict=True)
    )
    others = {}
    if config.local_crops:
        size = (count, side, side)
        local = _Crops(config, size, config.local_scale, config.local_blur, 0.0)
        others["local"] = OtherViews(
            size, config.local_crops, _NUMBERS.total, local.frame, local.change
        )
    if config.undistorted:
        size = (count, config.undistorted * height, config.undistorted * width)
        large = _Crops(config, size, config.global_scale, 0.0, 0.0)
        others["undistorted"] = OtherViews(size, len(views), 0, large.frame, large.undistorted)

    def plain(high: int, wide: int) -> crops.Frame:
        return crops.resized_crops(
            (high, wide),
            (height, width),
            shorter=config.resize,
            interpolation=config.interpolation,
        )

    first = views[0]
    return Augmentation(
        _NUMBERS.total,
        first.frame,
        plain,
        first.change,
        unmixed,
        changes=tuple(view.change for view in views),
        other_views=others,
    )


def local_size(size: int) -> int:
    """Of local crops beside global ones of `size` pixels, by default."""
    return max(4, round(size * 3 / 7 / 4) * 4)


class _Crops:
    """Random crops of one kind, resized to `size` and distorted."""

    def __init__(
        self,
        config: MultiCrop,
        size: tuple[int, int, int],
        scale: tuple[float, float],
        blur: float,
        solarize: float,
    ) -> None:
        self.config, self.size, self.scale = config, size, scale
        self.blur, self.solarize = blur, solarize
        self.kernel = max(3, size[1] // 10 // 2 * 2 + 1)

    def frame(self, drawn: Tensor, high: int, wide: int) -> crops.Frame:
        return crops.random_resized_crops(
            (high, wide),
            self.size[1:],
            scale=self.scale,
            ratio=self.config.ratio,
            numbers=_NUMBERS(drawn, "crop"),
            interpolation=self.config.interpolation,
            flipped=_NUMBERS(drawn, "flip").squeeze(1) < self.config.horizontal_flip,
        )

    def change(self, images: Tensor, drawn: Tensor) -> Tensor:
        def jitter(images: Tensor, which: Tensor) -> Tensor:
            return color.jittered(
                images,
                _NUMBERS(drawn, "jitter")[which],
                brightness=self.config.color_jitter,
                contrast=self.config.color_jitter,
                saturation=self.config.saturation,
                hue=self.config.hue,
            )

        def blur(images: Tensor, which: Tensor) -> Tensor:
            low, high = _SIGMA
            sigmas = low + (high - low) * _NUMBERS(drawn, "sigma")[which, 0]
            return color.blurred(images, sigmas, self.kernel)

        for name, probability, changed in (
            ("jitters", self.config.color_jitter_probability, jitter),
            ("gray", self.config.grayscale, lambda images, _: _gray(images)),
            ("blurs", self.blur, blur),
            ("solarizes", self.solarize, lambda images, _: solarized(images)),
        ):
            images = color.apply_randomly(images, _NUMBERS(drawn, name), probability, changed)
        return channels(images, self.size[0])

    def undistorted(self, images: Tensor, drawn: Tensor) -> Tensor:
        return channels(images, self.size[0])


def _gray(images: Tensor) -> Tensor:
    return channels(images, 1).expand_as(images)


def solarized(images: Tensor) -> Tensor:
    """Pixels from 128 of 255 on are inverted: [n, c, h, w] in [0, 1] -> the same."""
    return images.where(images < _THRESHOLD, 1 - images)
