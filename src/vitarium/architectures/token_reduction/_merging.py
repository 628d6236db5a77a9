"""Which tokens are merged into which, and how many patches each stands for."""

from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from vitarium.architectures.token_reduction._attention import AttendingBlock, gathered


def alternating(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Patches [batch, n, width] in turns: A, the second, the fourth and so on, and B, the others.

    So, where one class token stands before them, the sets are the authors'.
    """
    return patches[:, 1::2], patches[:, ::2]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Of [batch, a, width] and [batch, b, width], in float32 at least: [batch, a, b]"""
    wide = torch.promote_types(a.dtype, torch.float32)
    return F.normalize(a.to(wide), dim=-1) @ F.normalize(b.to(wide), dim=-1).transpose(1, 2)


class Merge(NamedTuple):
    """Of two sets of tokens, which of the first are merged into which of the second."""

    unmerged: Tensor
    """Numbers in the first set of those that stay, in order: [batch, a - r]"""
    sources: Tensor
    """Numbers in the first set of those that are merged, [batch, r]"""
    targets: Tensor
    """Numbers in the second set of what each is merged into, [batch, r]"""

    @classmethod
    def of(cls, scores: Tensor, r: int) -> "Merge":
        """Each of the first set has a best of the second, by scores [batch, a, b]; the r whose best
        score is highest are merged."""
        best, nearest = scores.max(-1)
        order = best.argsort(dim=1, descending=True, stable=True)
        sources = order[:, :r]
        return cls(order[:, r:].sort(dim=1).values, sources, nearest.gather(1, sources))

    def summed(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [batch, a, width] and [batch, b, width] -> those of the first set that stay
        [batch, a - r, width], and the second set, with what is merged into it added."""
        index = self.targets.unsqueeze(-1).expand(-1, -1, second.shape[-1])
        added = second.scatter_add(1, index, gathered(first, self.sources))
        return gathered(first, self.unmerged), added


class Sizes:
    """How many patches of the image each token stands for, while a model computes."""

    def __init__(self) -> None:
        self.patches: Tensor | None = None
        """[batch, n, 1]; None: one each."""

    def of(self, patches: Tensor) -> Tensor:
        """Of patches [batch, n, width]: [batch, n, 1]"""
        return torch.ones_like(patches[..., :1]) if self.patches is None else self.patches

    def bias(self, prefix: int, dtype: torch.dtype) -> Tensor | None:
        """Log of the sizes, [batch, 1, 1, prefix + n]; of class token and registers 0."""
        if self.patches is None:
            return None
        return F.pad(self.patches.log().flatten(1), (prefix, 0))[:, None, None].to(dtype)


class SizedBlock(AttendingBlock):
    """A block that may merge tokens."""

    sizes: Sizes
    """Of the tokens that it is given, and then of those that it gives."""


class SizedTransformer(VisionTransformer):
    """timm's with blocks that may merge tokens, which tell each other their sizes."""

    reduces_tokens = True

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.sizes = Sizes()
        for block in self.blocks:
            assert isinstance(block, SizedBlock)
            block.sizes = self.sizes

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """images [batch, c, h, w] -> tokens [batch, prefix + n, embed_dim]"""
        self.sizes.patches = None
        tokens: Tensor = super().forward_features(x, *args, **kwargs)
        self.sizes.patches = None  # nothing of these images stays in memory
        return tokens
