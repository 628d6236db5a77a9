"""Position artifacts: variance of patch features that position alone explains."""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from vitarium.evaluation.attention import BATCH_SIZE
from vitarium.evaluation.features import Tap, evaluating, first_tensor, patch_features, tapped, taps
from vitarium.measures.base import Config, EvalModel, NotApplicable, Representation, Values, measure


class PositionArtifacts(Config):
    num_images: int = Field(256, ge=2)
    """Largest number of images of the split to use."""


@measure(
    "position_artifacts",
    unit="fraction",
    paper="after Yang et al. 2024, Denoising Vision Transformers, arXiv 2401.02957",
)
def position_artifacts(config: PositionArtifacts, subject: EvalModel) -> Values:
    """Position artifacts: share of patch features' variance that position explains, per block.

    Analysis of variance of each block's output [images, positions, channels], summed over channels:
    what positions explain, minus what they would by chance, over the total; about 0, at times
    below, where position says nothing. "" is the last block's. Raises NotApplicable for less than
    two images or patches, or where all features are the same.
    """
    examples = subject.examples.first(config.num_images)
    if len(examples) < 2:
        raise NotApplicable(f"{subject.name}: two images at least are needed, not {len(examples)}")
    layers = taps(subject.model, Representation())
    variances = {tap.name: Variance() for tap in layers}

    def see(tap: Tap, output: Any) -> None:
        features = first_tensor(output, tap.name)
        if features.dim() < 3:
            raise NotApplicable(f"{tap.name} gives no patches: {list(features.shape)}")
        variances[tap.name].add(patch_features(subject.model, features, tap.name))

    with tapped(layers, see), torch.inference_mode(), evaluating(subject.model):
        for batch in examples.batches(BATCH_SIZE):
            subject.model(batch.images)
    parts = {name: variance.of_position(name) for name, variance in variances.items()}
    return {"": parts[layers[-1].name]} | parts


@dataclass
class Variance:
    """Sums that a two-way analysis of variance needs, image after image, in float64."""

    images: int = 0
    shift: Tensor | None = None
    """Taken off first, so that sums of squares are not large numbers of small difference."""
    position: Tensor | None = None
    """Sums over images [positions, channels]"""
    image: float | Tensor = 0.0
    """Sum of the squared means over positions"""
    square: float | Tensor = 0.0

    def add(self, features: Tensor) -> None:
        """[n, positions, channels]"""
        features = features.double()
        if self.shift is None or self.position is None:
            self.shift, self.position = features.mean((0, 1)), torch.zeros_like(features[0])
        features = features - self.shift
        self.images += len(features)
        self.position += features.sum(0)
        self.image = self.image + features.mean(1).square().sum()
        self.square = self.square + features.square().sum()

    def of_position(self, name: str) -> float:
        """Share of the variance; `name` is for the message of NotApplicable."""
        assert self.position is not None
        n, positions = self.images, len(self.position)
        if positions < 2:
            raise NotApplicable(f"{name} has one patch alone")
        means = self.position / n
        grand = float(means.mean(0).square().sum()) * n * positions
        total = float(self.square) - grand
        if not total > 1e-12 * float(self.square):
            raise NotApplicable(f"{name} gives the same features everywhere")
        between = float(means.square().sum()) * n - grand
        images = float(self.image) * positions - grand
        # What positions explain by chance: the interaction's mean square, per degree of freedom.
        chance = (total - between - images) / (n - 1)
        return (between - chance) / total
