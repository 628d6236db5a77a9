"""ViTs side by side: what a model that was split by classes becomes when its parts are fused."""

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import PositiveInt
from timm.layers.pool1d import global_pool_nlc
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.elastic.uneven_vit import UnevenVit, uneven_vit
from vitarium.architectures.vit.vit import TRAINING_FACTORS


class EdVitFusion(UnevenVit):
    """Settings of each of the ViTs, which are alike, and how many there are."""

    parts: PositiveInt = 2
    """ViTs side by side."""


class SideBySide(nn.ModuleList):
    """Modules that each see an equal share of the channels: [..., n * width] to [..., n * width]"""

    def forward(self, x: Tensor) -> Tensor:
        shares = x.chunk(len(self), dim=-1)
        return torch.cat([part(share) for part, share in zip(self, shares, strict=True)], dim=-1)


class FusedVisionTransformer(nn.Module):
    """Its tokens are those of all parts, side by side.

    No part sees another's channels before the head. Tensors have their names in a part with its
    number behind the block or norm (`blocks.3.0.attn.qkv.weight`), or behind `stems`.
    """

    def __init__(self, config: EdVitFusion, num_outputs: int) -> None:
        super().__init__()
        parts: list[Any] = [uneven_vit(config, 0) for _ in range(config.parts)]
        blocks: Iterable[tuple[nn.Module, ...]] = zip(*(p.blocks for p in parts), strict=True)
        self.blocks = nn.Sequential(*map(SideBySide, blocks))
        self.norm = SideBySide(part.norm for part in parts)
        self.fc_norm = SideBySide(part.fc_norm for part in parts)
        for part in parts:
            part.blocks, part.norm, part.fc_norm = nn.Sequential(), nn.Identity(), nn.Identity()
        self.stems = nn.ModuleList(parts)
        self.num_prefix_tokens: int = parts[0].num_prefix_tokens
        self.global_pool = config.global_pool
        self.num_classes, self.embed_dim = num_outputs, config.parts * config.embed_dim
        self.num_features = self.head_hidden_size = self.embed_dim
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(self.embed_dim, num_outputs) if num_outputs else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """images [batch, c, h, w] -> tokens [batch, prefix + patches, parts * embed_dim]"""
        tokens = torch.cat([stem.forward_features(x) for stem in self.stems], dim=-1)  # type: ignore[operator]
        normed: Tensor = self.norm(self.blocks(tokens))
        return normed

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens [batch, prefix + patches, parts * embed_dim] -> outputs [batch, num_outputs]"""
        pooled = global_pool_nlc(x, self.global_pool, num_prefix_tokens=self.num_prefix_tokens)
        features = self.head_drop(self.fc_norm(pooled))
        outputs: Tensor = features if pre_logits else self.head(features)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """images [batch, c, h, w] -> outputs [batch, num_outputs]"""
        return self.forward_head(self.forward_features(x))


def fused_name(name: str, part: int) -> str:
    """In the fused model, the name of a part's tensor that is not of its head."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        number, _, rest = rest.partition(".")
        return f"blocks.{number}.{part}.{rest}"
    return f"{first}.{part}.{rest}" if first in ("norm", "fc_norm") else f"stems.{part}.{name}"


@architecture(
    "ed_vit_fusion",
    paper="Liu et al. 2024, arXiv 2410.11650",
    symmetries="units of each of its ViTs can be exchanged alone, which is not declared yet",
    training_factors=TRAINING_FACTORS,
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "head_dim": 5,
    },
)
def ed_vit_fusion(config: EdVitFusion, num_outputs: int) -> nn.Module:
    """ViTs side by side, whose features the head fuses; see the operator of that name."""
    return FusedVisionTransformer(config, num_outputs)
