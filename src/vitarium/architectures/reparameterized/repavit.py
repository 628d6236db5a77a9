"""RePaViT: MLPs most of whose hidden units have no activation, and become one matrix afterwards."""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

from pydantic import Field
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, cat, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class Repavit(Vit):
    """RePaViT; by default ViT-Ti/16 with three quarters of the hidden units idle.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    idle_ratio: float = Field(0.75, ge=0, le=1)
    """Share of each MLP's hidden units without activation; 0: an ordinary MLP, 1: a linear map."""
    pre_norm: bool = True
    """Normalize tokens before the first block, in place of a bias of the patch embedding."""
    fused: bool = False
    """The re-parameterized form, which the operator `repavit_fusion` makes of a trained model."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes."""
        return {**super().arguments(), "pre_norm": self.pre_norm}

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.fused and self.proj_drop_rate:
            yield "a fused model has no dropout in its MLPs; leave out proj_drop_rate"

    @property
    def active(self) -> int:
        """Hidden units with an activation: ceil(hidden * (1 - idle_ratio)), without errors of
        binary fractions."""
        hidden = int(self.embed_dim * self.mlp_ratio)
        return math.ceil(hidden * (1 - Fraction(str(self.idle_ratio))))


class TokenBatchNorm(nn.BatchNorm1d):
    """Over all tokens of a batch: [batch, n, width] -> the same."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.flatten(0, 1)).view_as(tokens)


class IdleMlp(nn.Module):
    """An MLP whose first hidden units alone have an activation; a norm stands before the second
    layer: [batch, n, width] -> the same."""

    def __init__(self, width: int, hidden: int, active: int, act: nn.Module, drop: float) -> None:
        super().__init__()
        self.active, self.act = active, act
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm, self.drop = TokenBatchNorm(hidden), nn.Dropout(drop)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.fc1(tokens)
        mixed = cat([self.act(hidden[..., : self.active]), hidden[..., self.active :]], dim=-1)
        outputs: Tensor = self.drop(self.fc2(self.norm(mixed)))
        return outputs


class FusedMlp(nn.Module):
    """The same with its residual, in few matrices: [batch, n, width] -> the same."""

    def __init__(self, width: int, active: int, act: nn.Module) -> None:
        super().__init__()
        self.skip = nn.Linear(width, width)
        """The residual and all idle units."""
        self.fc1 = nn.Linear(width, active) if active else None
        self.fc2 = nn.Linear(active, width, bias=False) if active else None
        self.act = act

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.skip(tokens)
        if self.fc1 is not None and self.fc2 is not None:
            outputs = outputs + self.fc2(self.act(self.fc1(tokens)))
        return outputs


class RepavitBlock(Block):
    """timm's with batch norms around an MLP with idle units, or with what they are fused to."""

    def __init__(self, *args: Any, config: Repavit, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width, self.fused = config.embed_dim, config.fused
        mlp: Any = self.mlp
        if config.fused:
            self.norm2, self.mlp = nn.Identity(), FusedMlp(width, config.active, mlp.act)
            return
        hidden, drop = mlp.fc1.out_features, config.proj_drop_rate
        self.norm2 = TokenBatchNorm(width)
        self.mlp = IdleMlp(width, hidden, config.active, mlp.act, drop)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.fused:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), *args, **kwargs)))
        fused: Tensor = self.mlp(x)
        return fused


@architecture(
    "repavit",
    paper="Xu et al. 2025, arXiv 2505.21847",
    symmetries="idle hidden units can be mixed and active ones exchanged, which is not declared",
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def repavit(config: Repavit, num_outputs: int) -> nn.Module:
    """A ViT most of whose hidden units are linear, so that its MLPs can be fused (RePaViT)."""
    block: Any = partial(RepavitBlock, config=config)
    return VisionTransformer(**config.arguments(), block_fn=block, num_classes=num_outputs)
