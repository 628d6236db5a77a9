"""LoRA: changes of low rank."""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.adaptations._factors import (
    Factors,
    Part,
    adapt_linear,
    changed,
    check_rank,
    in_rows,
    matrices_of,
)
from vitarium.adaptations._selection import Blocks, train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config

Matrix = Literal["q", "k", "v", "proj", "fc1", "fc2"]


def _distinct(matrices: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    if len(set(matrices)) < len(matrices):
        raise ValueError(f"{', '.join(matrices)} name a matrix twice")
    return matrices


Matrices = Annotated[tuple[Matrix, ...], Field(min_length=1), AfterValidator(_distinct)]
"""Names of matrices of a block: each once, since settings that differ are other models."""


class LowRank(Config):
    rank: PositiveInt = 8
    """Rank r of each change."""
    alpha: PositiveFloat = 8.0
    """A change is alpha / rank times the product of its factors."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Lora(LowRank):
    matrices: Matrices = ("q", "v")
    """Which matrices of a block: q, k, v (rows of a fused qkv), proj (of attention), fc1, fc2 (of
    the MLP)."""
    blocks: Blocks | None = None
    """Numbers of the blocks, from 0; negative ones count from the last. None: all."""


class LoraFactors(Factors):
    """Factors A [rank, in] and B [rows, rank] of each matrix in a layer."""

    def __init__(self, layer: nn.Linear, parts: Collection[Part], config: LowRank) -> None:
        super().__init__()
        self.parts, self.rows, self.scale = list(parts), layer.out_features, config.scale
        for part in parts:
            a = layer.weight.new_empty(config.rank, layer.in_features)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            self.register_parameter(f"{part.matrix}_A", nn.Parameter(a))
            b = layer.weight.new_zeros(part.stop - part.start, config.rank)
            self.register_parameter(f"{part.matrix}_B", nn.Parameter(b))

    def _factors(self, name: str) -> list[Tensor]:
        return [getattr(self, f"{part.matrix}_{name}") for part in self.parts]

    def change(self) -> Tensor:
        pairs = zip(self.parts, self._factors("A"), self._factors("B"), strict=True)
        return self.scale * in_rows({part: b @ a for part, a, b in pairs}, self.rows)

    def forward(self, inputs: Tensor) -> Tensor:
        down = F.linear(inputs, torch.cat(self._factors("A")))  # [..., matrices * rank]
        rank = down.shape[-1] // len(self.parts)
        up = {
            part: self.scale * F.pad(b, (i * rank, down.shape[-1] - (i + 1) * rank))
            for i, (part, b) in enumerate(zip(self.parts, self._factors("B"), strict=True))
        }
        return F.linear(down, in_rows(up, self.rows))


def merge(config: LowRank, name: str, weight: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
    """The plain weight [out, in]: W + alpha / rank * B A"""
    return changed(name, weight, factors, lambda own: config.scale * own["B"] @ own["A"])


def add_lora(
    config: LowRank,
    model: nn.Module,
    adaptation: str,
    matrices: Collection[str],
    blocks: Collection[int] | None,
) -> None:
    """Let these matrices of these blocks compute with low-rank factors, which learn, in place."""
    for name, layer, parts in matrices_of(model, adaptation, matrices, blocks):
        check_rank(adaptation, config.rank, name, layer, parts)
        adapt_linear(layer, LoraFactors(layer, parts, config))


@adaptation(
    "lora", title="LoRA", paper="Hu et al. 2022, arXiv 2106.09685", merge=merge, stackable=True
)
def lora(config: Lora, model: nn.Module) -> None:
    """LoRA: frozen matrices with a learned change of low rank each, and the head.

    W + alpha / rank * B A with A [rank, in] drawn (Kaiming uniform, a = sqrt 5) and B [out, rank]
    zero. A fused qkv has factors for q, k and v apart.
    """
    train_only(model, lambda name: False)
    add_lora(config, model, "lora", config.matrices, config.blocks)
