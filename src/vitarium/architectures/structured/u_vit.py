"""Long skip connections from the first half of the blocks to the second, as U-ViT has them."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import NOTHING, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput


class UVit(Vit):
    """A ViT with long skips: late blocks read the outputs of early ones, in the reverse order.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]. Of L blocks the
    last (L - 1) // 2 have one each; the middle one (of an even number, the middle two) has none.
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.depth < 3:
            yield f"depth {self.depth} leaves no two blocks with one between; use 3 or more"


class SkipBlock(Block):
    """A block that reads tokens [batch, n, dim] and an early block's [batch, n, dim] as well."""

    skip: nn.Linear

    def forward(self, x: Tensor, early: Tensor) -> Tensor:  # type: ignore[override]
        """block(skip([x, early])) -> [batch, n, dim]"""
        outputs: Tensor = super().forward(self.skip(torch.cat([x, early], dim=-1)))
        return outputs


class LongSkipTransformer(VisionTransformer):
    """Its first blocks' outputs go to its last blocks, the last of the ones to the first of the
    others; `num_skips` of each."""

    num_skips: int

    def forward_features(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Images [batch, c, h, w] -> tokens [batch, prefix + patches, embed_dim]"""
        if attn_mask is not None or is_causal:
            raise InvalidInput("blocks with long skips take no attention mask")
        tokens = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
        early: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            if isinstance(block, SkipBlock):
                tokens = block(tokens, early.pop())
                continue
            tokens = block(tokens)
            if number < self.num_skips:
                early.append(tokens)
        normed: Tensor = self.norm(tokens)
        return normed


class LongSkipDeclaration(VitDeclaration):
    """The symmetries of `u_vit`; skips read the stream without norm, so it is not mixed."""

    mixes_stream = False

    def block(self, at: str, block: Any) -> None:
        """Raises IncompatibleWeights for another kind than timm's and `SkipBlock`."""
        if not isinstance(block, SkipBlock):
            super().block(at, block)
            return
        width = self.model.embed_dim
        self.piece(f"{at}.skip.weight", (width, 2, width), (self.written, NOTHING, self.read))
        self.bias(f"{at}.skip", block.skip, self.written)
        self.branches(at, block)


@architecture(
    "u_vit",
    paper="Bao et al. 2023, arXiv 2209.12152",
    symmetries=LongSkipDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2},
)
def u_vit(config: UVit, num_outputs: int) -> nn.Module:
    """A ViT with long skips: late blocks read the outputs of early ones, in the reverse order.

    Every skip starts as if it were not there, weights [identity, 0]: of the same seed the model is
    `vit`. An `initialization` other than the default draws skips like other layers.
    """
    model = LongSkipTransformer(**config.arguments(), num_classes=num_outputs)
    model.num_skips = (config.depth - 1) // 2
    width = config.embed_dim
    for number in range(config.depth - model.num_skips, config.depth):
        block: Any = model.blocks[number]
        block.__class__ = SkipBlock
        block.skip = nn.Linear(2 * width, width)
        with torch.no_grad():
            block.skip.weight.copy_(torch.eye(width, 2 * width))
            block.skip.bias.zero_()
    return model
