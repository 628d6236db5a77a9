"""AugReg's seven levels of augmentation."""

from typing import Literal, get_args

from pydantic import Field, PositiveInt

from vitarium.core.config import Config
from vitarium.core.registry import section
from vitarium.data.augmentations.base import Area, Augmentation, augmentation
from vitarium.data.augmentations.standard import Standard, standard

Level = Literal["none", "light0", "light1", "medium1", "medium2", "strong1", "strong2"]
_POLICIES: dict[str, tuple[int, int, float]] = {
    "light0": (2, 0, 0.0),
    "light1": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}
"""Operations of RandAugment, their magnitude, and mixup's alpha."""
LEVELS = get_args(Level)


class AugReg(Config):
    level: Level = "medium1"
    """How strong the augmentation is, by the names of the released models. `light0` is not nothing:
    operations without a magnitude remain. The code of the paper calls light0 light1, and light1
    light2."""
    scale: Area = (0.05, 1.0)
    """Smallest and largest area of the random crop, as a share of the image's area."""
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    resize: PositiveInt | None = None
    """Length of the shorter side, in pixels, when images are scored; none: the model's image
    size."""

    @property
    def mixup(self) -> float:
        """Alpha of mixup; 0: none."""
        return _POLICIES[self.level][2] if self.level in _POLICIES else 0.0


@augmentation("augreg", paper="Steiner et al. 2022, arXiv 2106.10270", tiny={"level": "strong2"})
def augreg(config: AugReg, input_size: tuple[int, int, int], num_classes: int) -> Augmentation:
    """AugReg's levels: random crops and flips, RandAugment on TensorFlow's scale, and mixup.

    Mixup's share is one of Beta(alpha, alpha) a batch, whose partner is the batch in reverse; in
    big_vision it is the next image, and the larger share is the image's own. An image of a shuffled
    batch is mixed in the same ways either way.
    """
    policy = None
    if config.level in _POLICIES:
        num_ops, magnitude, _ = _POLICIES[config.level]
        policy = section(
            "policy", {"name": "randaugment_tf", "num_ops": num_ops, "magnitude": magnitude}
        )
    settings = Standard(
        crop="random_resized",
        scale=config.scale,
        resize=config.resize,
        horizontal_flip=config.horizontal_flip,
        policy=policy,
        mixup=config.mixup,
    )
    return standard(settings, input_size, num_classes)
