"""Progressive learning: stages of a training with ever larger images, augmented ever more."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.config import Config


class Progressive(Config):
    """Stages of equally many epochs with rising image sizes; the last is ordinary training (Tan &
    Le 2021, arXiv 2104.00298, Sec. 4). RandAugment's magnitude and the alphas of mixup and CutMix
    rise with them, where the augmentation has them."""

    stages: PositiveInt = 4
    """Number of stages; `epochs` is a multiple of it."""
    smallest: PositiveInt
    """Height, in pixels, that the sizes rise from: 128 of 192 to 384 in the paper."""
    first_stage: Literal["above", "at"] = "above"
    """Whether the first stage is one step above that, as in the published code: smallest + (full -
    smallest) * (s + 1) / stages of stage s from 0; or at it, as in the paper: smallest + (full -
    smallest) * s / (stages - 1)."""
    smallest_magnitude: NonNegativeFloat = Field(5, le=30)
    """RandAugment's magnitude in the first stage; it rises in equal steps, rounded, to the
    augmentation's. mixup and CutMix rise from 0."""

    def stage_of(self, epoch: int, epochs: int) -> int:
        """The stage (from 0) of an epoch (from 1)."""
        return (max(epoch, 1) - 1) * self.stages // epochs

    def share(self, stage: int) -> float:
        """How far the augmentation's strength has risen in a stage, from 0 to 1."""
        return stage / (self.stages - 1) if self.stages > 1 else 1.0

    def pixels(self, stage: int, full: int) -> int:
        """The size of a stage's images before it is rounded to patches."""
        share = (stage + 1) / self.stages if self.first_stage == "above" else self.share(stage)
        return int(self.smallest + (full - self.smallest) * share)

    def sizes(self, full: tuple[int, int], patch: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each stage's images: multiples of the patch's, the last is `full`."""
        heights = [
            max(round(self.pixels(stage, full[0]) / patch[0]), 1) for stage in range(self.stages)
        ]
        columns = full[1] / patch[1] / (full[0] / patch[0])  # for each row of patches
        sizes = [(rows * patch[0], max(round(rows * columns), 1) * patch[1]) for rows in heights]
        return [*sizes[:-1], full]
