"""Queries of a model and keys of its momentum encoder, as in MoCo v3."""

from collections.abc import Mapping
from math import sqrt

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.heads import num_features
from vitarium.architectures.patch_tokens import fix_positions, require_plain
from vitarium.core.devices import without_autocast
from vitarium.objectives._projectors import normalized_projector
from vitarium.objectives._similarities import unit
from vitarium.objectives.companions import Companions, MomentumTeacher, Progress, cosine
from vitarium.objectives.contrastive.base import Contrastive


class MomentumContrast(Contrastive):
    """Settings of objectives with a momentum encoder."""

    temperature: PositiveFloat = 0.2
    """Temperature of the softmax: cosine similarities are divided by it."""
    projector_hidden_dim: PositiveInt = 4096
    """Units of the hidden layers of projector and predictor."""
    out_dim: int = Field(256, ge=2)
    """Width of queries and keys, at least 2."""
    momentum: float = Field(0.99, ge=0, le=1)
    """How much of itself the momentum encoder keeps in the first step; a cosine takes it to 1. A
    run of few steps needs less, else the encoder stays what it starts as."""
    frozen_patch_embed: bool = True
    """The patch embedding stays as it is; from scratch that is a random one."""
    fixed_positions: bool = True
    """Positions are sines and cosines that do not learn; a stage that starts from the model trains
    them. Else those of the architecture, which learn."""


class MomentumCompanions(Companions):
    """Projector and predictor of the queries, and the encoder and projector of the keys."""

    def __init__(self, config: MomentumContrast, model: nn.Module) -> None:
        super().__init__()
        self._start = config.momentum
        hidden, width = config.projector_hidden_dim, config.out_dim
        self.projector = normalized_projector(num_features(model), hidden, hidden, width)
        self.predictor = normalized_projector(width, hidden, width)
        self.key_encoder = MomentumTeacher(model)
        self.key_projector = MomentumTeacher(self.projector)

    def queries_and_keys(self, model: nn.Module, images: Tensor) -> tuple[list[Tensor], ...]:
        """images [2 * batch, c, h, w], all first views before all second ones -> of each view its
        queries, of each view its keys, all [batch, out_dim] of rows of length 1.

        Each view is normalized by its own batch.
        """
        outputs = model(images).chunk(2)
        queries = [self.predictor(self.projector(view)) for view in outputs]
        keys = [self.key_projector(view) for view in self.key_encoder(images).chunk(2)]
        with without_autocast(queries[0]):
            return [*map(unit, queries)], [*map(unit, keys)]

    def after_step(
        self, model: nn.Module, statistics: Mapping[str, Tensor], progress: Progress
    ) -> None:
        """Follow the model, by the momentum of the next step: the paper's code follows it at the
        beginning of a step, which is nothing in the first one."""
        momentum = cosine(self._start, 1.0, min(progress.step + 1, progress.steps), progress.steps)
        self.key_encoder.follow(model, momentum)
        self.key_projector.follow(self.projector, momentum)


def prepare(config: MomentumContrast, model: nn.Module, from_scratch: bool) -> None:
    """A fixed patch embedding and fixed positions; those of a model that goes on stay as they are,
    and do not learn."""
    if config.frozen_patch_embed:
        plain = require_plain(model, "frozen_patch_embed")
        if from_scratch:
            draw_patch_embedding(plain)
        plain.patch_embed.requires_grad_(False)
    if config.fixed_positions:
        plain = require_plain(model, "fixed_positions")
        assert plain.pos_embed is not None
        if from_scratch:
            fix_positions(plain)
        plain.pos_embed.requires_grad_(False)


@torch.no_grad()
def draw_patch_embedding(model: VisionTransformer) -> None:
    """Weights uniform in +-sqrt(6 / (numbers of a patch + embed_dim)), and no biases, in place."""
    weight = model.patch_embed.proj.weight
    bound = sqrt(6 / (weight[0].numel() + len(weight)))
    nn.init.uniform_(weight, -bound, bound)
    if model.patch_embed.proj.bias is not None:
        nn.init.zeros_(model.patch_embed.proj.bias)
