"""ToMe: in every block the patches that are most alike are merged, by their keys."""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import Readers
from vitarium.architectures.token_reduction._attention import parted
from vitarium.architectures.token_reduction._merging import (
    Merge,
    SizedBlock,
    SizedTransformer,
    alternating,
    cosines,
)
from vitarium.architectures.token_reduction._model import ReducingDeclaration, reducing_vit
from vitarium.architectures.vit.vit import TRAINING_FACTORS, CosineQueries, PlainVit
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights


class TokenMerging(Config):
    """How many patches are merged, and how they are seen."""

    r: NonNegativeInt = 8
    """Patches that each block merges into others, at most half of those that there are; 0: none,
    the plain ViT."""
    inflect: float = Field(0.0, ge=-1, le=1)
    """Slope of r over the blocks: from r (1 - inflect) in the first to r (1 + inflect) in the last;
    -1 merges more in the first blocks, as the authors' decreasing schedule."""
    proportional: bool = True
    """Attend to a token as to as many as were merged into it (log of their number is added to the
    logits)."""


class Tome(PlainVit, TokenMerging):
    """ToMe; the defaults are those of ViT-Ti/16. Its weights are those of `vit`, by name and shape.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.r > (patches := (self.img_size // self.patch_size) ** 2):
            yield f"r {self.r}: an image has {patches} patches, and a block merges half at most"

    @property
    def schedule(self) -> list[int]:
        """How many patches each block merges, as far as there are enough."""
        first = self.r * (1 - self.inflect)
        if not self.inflect:
            return [self.r] * self.depth
        step = (2 * self.r - int(first) - int(first)) / max(self.depth - 1, 1)
        return [int(int(first) + step * number) for number in range(self.depth)]


class TomeBlock(SizedBlock):
    """A block that may merge patches, between its attention and its MLP.

    [batch, prefix + n, width] -> [batch, prefix + n - r, width]
    """

    def __init__(self, *args: Any, config: Tome, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.r, self.proportional = config.schedule[depth], config.proportional
        self.prefix = config.reg_tokens + config.class_token

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r = min(self.r, (x.shape[1] - self.prefix) // 2)
        if not r and self.sizes.patches is None:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        bias = self.sizes.bias(self.prefix, x.dtype) if self.proportional else None
        tokens, attended = self.attended(x, bias)
        if r:
            first, patches = parted(tokens, self.prefix)
            metric = alternating(attended.keys.mean(1)[:, self.prefix :])
            merge = Merge.of(cosines(*metric), r)
            sizes = self.sizes.of(patches)
            merged_sizes = merge.summed(*alternating(sizes))
            sums = merge.summed(*alternating(sizes * patches))
            self.sizes.patches = torch.cat(merged_sizes, dim=1)
            tokens = torch.cat([first, torch.cat(sums, dim=1) / self.sizes.patches], dim=1)
        return self.transformed(tokens)


class TomeDeclaration(ReducingDeclaration):
    """Those of `vit`, but that keys are not mixed: their mean over heads decides what is merged."""

    def attention(self, at: str, attention: Any) -> Readers:
        """Raises IncompatibleWeights for cosine attention."""
        if isinstance(attention.q_norm, CosineQueries):
            raise IncompatibleWeights(f"{at}: symmetries of tome with cosines are not declared")
        self.heads_of(at, attention, normed=True)
        return [(f"{at}.qkv", attention.qkv)]


@architecture(
    "tome",
    paper="Bolya et al. 2023, arXiv 2210.09461",
    symmetries=TomeDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values"),
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "r": 3},
)
def tome(config: Tome, num_outputs: int) -> nn.Module:
    """A ViT that merges the patches that are most alike, in every block."""
    return reducing_vit(SizedTransformer, TomeBlock, config, num_outputs)
