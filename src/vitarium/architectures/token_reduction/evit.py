"""EViT: patches to which the class token attends least are fused to one, in a few blocks."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.token_reduction._attention import (
    AttendingBlock,
    class_attention,
    gathered,
    parted,
)
from vitarium.architectures.token_reduction._model import ReducingDeclaration, reducing_vit
from vitarium.architectures.vit.vit import TRAINING_FACTORS, PlainVit
from vitarium.core.config import Config


class TokenDropping(Config):
    """How many patches go on, and which."""

    keep_rate: float = Field(0.7, gt=0, le=1)
    """Share of the patches that go on from each reducing block; 1: all, the plain ViT."""
    reducing_blocks: tuple[NonNegativeInt, ...] | None = None
    """Numbers of the blocks, from 0, that reduce tokens; null: those after each quarter of the
    blocks, in a ViT of 12 blocks [3, 6, 9] as published."""
    fuse: bool = True
    """Add up the patches that do not go on, weighted by the attention to them, to one token."""
    ranking: Literal["attention", "random"] = "attention"
    """What goes on: the patches to which the class token attends most, or a random choice, the same
    for all images, to compare with."""
    shrink_start: NonNegativeInt = 0
    """Epochs of training in which all patches go on."""
    shrink_epochs: NonNegativeInt = 0
    """Epochs after these in which the keep rate falls from 1 to `keep_rate`, by half a period of a
    cosine (100 as published, after 10; EViT's falls in each step, this one in each epoch)."""


class Evit(PlainVit, TokenDropping):
    """EViT; the defaults are those of ViT-Ti/16. Its weights are those of `vit`, by name and shape.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if not self.class_token:
            yield "class_token false: which patches go on is the class token's attention; leave it"
        for number in self.reducing_blocks or ():
            if number >= self.depth:
                yield f"reducing_blocks {number}: there are blocks 0 to {self.depth - 1}"

    @property
    def reducing(self) -> tuple[int, ...]:
        """Numbers of the blocks that reduce tokens."""
        if self.reducing_blocks is not None:
            return self.reducing_blocks
        return quarters(self.depth)

    def rate_in(self, epoch: int) -> float:
        """The keep rate while training, of epochs from 1."""
        share = (epoch - 1 - self.shrink_start) / (self.shrink_epochs or 1)
        if share < 0:
            return 1.0
        fall = (1 + math.cos(math.pi * min(share, 1.0))) / 2 if self.shrink_epochs else 0.0
        return self.keep_rate + (1 - self.keep_rate) * fall


def quarters(depth: int) -> tuple[int, ...]:
    """Numbers of the blocks after each quarter of them: 3, 6 and 9 of 12."""
    return tuple(dict.fromkeys(depth * quarter // 4 for quarter in (1, 2, 3)))


def kept_count(patches: int, keep_rate: float) -> int:
    """ceil(keep_rate * patches), without errors of binary fractions."""
    return math.ceil(Fraction(str(keep_rate)) * patches)


class EvitBlock(AttendingBlock):
    """A block that may leave patches out, between its attention and its MLP.

    [batch, prefix + n, width] -> [batch, prefix + kept + 1, width], the patches by falling
    attention, then what the others are fused to; without `fuse`, not that one. What an earlier
    block fused is as good as a patch. Where all go on, nothing is done.
    """

    def __init__(self, *args: Any, config: Evit, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config, self.number = config, depth
        self.prefix = config.reg_tokens + 1

    @property
    def keep_rate(self) -> float:
        """Share of the patches that go on now."""
        return self.config.keep_rate if self.number in self.config.reducing else 1.0

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        count = kept_count(x.shape[1] - self.prefix, self.keep_rate)
        if count == x.shape[1] - self.prefix:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        tokens, attended = self.attended(x)
        first, patches = parted(tokens, self.prefix)
        attention = class_attention(self.attn, attended)[:, self.prefix :].to(patches.dtype)
        order = self._order(attention)
        parts = [first, gathered(patches, order[:, :count])]
        if self.config.fuse:
            dropped = order[:, count:]
            weights = attention.gather(1, dropped).unsqueeze(-1)
            parts.append((weights * gathered(patches, dropped)).sum(1, keepdim=True))
        return self.transformed(torch.cat(parts, dim=1))

    def _order(self, attention: Tensor) -> Tensor:
        """Numbers of the patches, those first that go on: [batch, n]"""
        if self.config.ranking == "attention":
            return attention.argsort(dim=1, descending=True, stable=True)
        generator = torch.Generator().manual_seed(self.number)
        order = torch.randperm(attention.shape[1], generator=generator, device="cpu")
        return order.to(attention.device).expand(attention.shape[0], -1)


class ShrinkingEvitBlock(EvitBlock):
    """Whose keep rate falls in the first epochs of training."""

    epoch = 1

    def at_epoch(self, epoch: int) -> None:
        """See `FollowsEpochs`."""
        self.epoch = epoch

    @property
    def keep_rate(self) -> float:
        rate = super().keep_rate
        return max(rate, self.config.rate_in(self.epoch)) if self.training and rate < 1 else rate


class EvitTransformer(VisionTransformer):
    """timm's with blocks that leave patches out."""

    reduces_tokens = True


@architecture(
    "evit",
    paper="Liang et al. 2022, arXiv 2202.07800",
    symmetries=ReducingDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values", "shrink_start", "shrink_epochs"),
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def evit(config: Evit, num_outputs: int) -> nn.Module:
    """A ViT that fuses the patches to which the class token attends least, in a few blocks."""
    kind = ShrinkingEvitBlock if config.shrink_start or config.shrink_epochs else EvitBlock
    return reducing_vit(EvitTransformer, kind, config, num_outputs)
