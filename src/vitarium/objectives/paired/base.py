"""What paired objectives have in common: views or modalities, projected to one space."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import log

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vitarium.architectures.heads import num_features
from vitarium.architectures.patch_tokens import (
    encode,
    patch_positions,
    patch_size,
    require_plain,
)
from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import ScoredByFeatures, evaluate_features
from vitarium.objectives._projectors import projector
from vitarium.objectives._similarities import unit
from vitarium.objectives.base import BatchesOfSplit
from vitarium.objectives.companions import Companions, Progress

LARGEST_SCALE = 100.0
"""Of similarities, as CLIP has it."""


class Paired(ScoredByFeatures):
    """Settings of objectives whose pairs are two views of an image, or two modalities."""

    out_dim: int = Field(256, ge=2)
    """Width of the projections, at least 2."""
    projector_hidden_dim: PositiveInt | None = None
    """Units of the projectors' hidden layer; none: they are linear, as CLIP's."""
    second_modality_channels: PositiveInt | None = None
    """Channels of a second modality, which follow the model's own in each image; it has a patch
    embedding of its own, and the same blocks. None: pairs are two views of the same channels."""


class PairCompanions(Companions):
    """Projectors, a learned scale and offset of similarities, and the second modality's patches."""

    def __init__(
        self, config: Paired, model: nn.Module, scale: float, offset: float | None = None
    ) -> None:
        super().__init__()
        width = num_features(model)
        hidden = [] if config.projector_hidden_dim is None else [config.projector_hidden_dim]
        self.projector = projector(width, *hidden, config.out_dim)
        self.log_scale = nn.Parameter(torch.full((1,), log(scale)))
        if offset is not None:
            self.offset = nn.Parameter(torch.full((1,), offset))
        self.channels = config.second_modality_channels
        if self.channels is not None:
            plain = require_plain(model, "second_modality_channels")
            patch = patch_size(plain)
            self.patch_embed = nn.Conv2d(self.channels, plain.embed_dim, patch, stride=patch)
            self.second_projector = projector(width, *hidden, config.out_dim)

    @property
    def scale(self) -> Tensor:
        """[1], at most 100"""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def pairs(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [2 * batch, c, h, w] -> both sides of each pair: rows of length 1, float32 [batch,
        out_dim].

        Of two modalities the first is of the first view, and the second of the second view.
        """
        if self.channels is None:
            first, second = self.projector(model(images)).chunk(2)
        else:
            own = images.shape[1] - self.channels
            of_first, of_second = images.chunk(2)
            first = self.projector(model(of_first[:, :own]))
            second = self.second_projector(self._second_features(model, of_second[:, own:]))
        with without_autocast(first):
            return unit(first), unit(second)

    def _second_features(self, model: nn.Module, images: Tensor) -> Tensor:
        """Of the second modality, by the model's blocks: [batch, num_features]"""
        plain = require_plain(model, "second_modality_channels")
        embedded = self.patch_embed(images)
        grid = (embedded.shape[2], embedded.shape[3])
        patches = plain.patch_embed.norm(embedded.flatten(2).transpose(1, 2))
        patches = patches + patch_positions(plain, grid)
        tokens, _ = encode(plain, patches)
        pooled: Tensor = plain.forward_head(tokens, pre_logits=True)
        return pooled

    def after_step(
        self, model: nn.Module, statistics: Mapping[str, Tensor], progress: Progress
    ) -> None:
        """Keep the scale where it has a gradient."""
        self.log_scale.clamp_(max=log(LARGEST_SCALE))


def extra_channels(config: Paired) -> int:
    """A fact: channels of training images beside the model's."""
    return config.second_modality_channels or 0


def evaluate_first(
    config: Paired, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`evaluate_features` of the first modality."""
    extra = extra_channels(config)

    def first(split: str, limit: int | None) -> Iterator[Batch]:
        for batch in batches(split, limit):
            own = batch.images.shape[1] - extra
            yield replace(batch, images=batch.images[:, :own]) if extra else batch

    return evaluate_features(config, model, first, splits)
