"""Vision retention: a vision transformer whose tokens read those before them, less with distance.

The parallel form of the authors' release takes a softmax after the decay, by which tokens see those
after them and the three forms differ; their other two have none, and neither has this one.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.attention._heads import NO_PROBABILITIES, Heads
from vitarium.architectures.attention._retaining import (
    SEQUENCE,
    Layout,
    Retain,
    chunked,
    parallel,
    recurrent,
)
from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput


class VisionRetention(Vit):
    """ViR, a ViT with retention instead of attention, and layer scale; by default of ViT-Ti's size.

    The class token comes last, after the patches in raster order, and so reads all of them.
    """

    form: Literal["parallel", "recurrent", "chunk"] = "parallel"
    """How it is computed, with the same outputs: all tokens at once, in time that grows with their
    square; token by token; or by chunks, both in time that grows with their number."""
    chunk: PositiveInt = 64
    """Tokens in a chunk; with a 2-D decay whole rows of patches, as many as fit, or one."""
    decay: Literal["1d", "2d"] = "1d"
    """Count steps along the sequence (1d); or rows and columns, where a patch sees those above and
    to the left of it alone (2d)."""
    bidirectional: bool = False
    """Put the whole sequence after itself in reverse, class token included; `global_pool` 'token'
    is then its last token, of the first patch, which reads all others in both orders."""
    init_values: PositiveFloat = 1e-5
    """Initial value of the layer scales; without a normalizer outputs grow with the tokens."""
    no_embed_class: bool = True
    """Give position embeddings to patches only, not to the class token and registers."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes."""
        return super().arguments() | {"init_values": self.init_values}

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.attn_drop_rate:
            yield NO_PROBABILITIES.format("retention")
        if self.form != "chunk" and self.chunk != type(self).model_fields["chunk"].default:
            yield f"chunk {self.chunk} is of form 'chunk', and form is '{self.form}'"
        if self.bidirectional and self.decay == "2d":
            yield "bidirectional goes with decay '1d': what comes after a grid is a plain sequence"


def head_decays(num_heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """gamma of each head, from 1 - 1/32 to 1 - 1/512, log(1 - gamma) equally far apart: [heads]"""
    first, last = math.log(1 / 32), math.log(1 / 512)
    return 1 - torch.linspace(first, last, num_heads, dtype=dtype, device=device).exp()


class Retention(Heads):
    """Tokens [batch, prefix + n, dim] -> the same; the prefix is read after the patches, the class
    token at the very end."""

    retain: Retain = staticmethod(parallel)
    layout = SEQUENCE
    prefix = 1

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[batch, heads, prefix + n, head_dim] each -> the same.

        Raises InvalidInput for another number of patches than the grid has, with a 2-D decay.
        """
        count = query.shape[-2] - self.prefix
        if self.layout.columns and count != self.layout.patches:
            raise InvalidInput(
                f"a 2-D decay needs the {self.layout.rows} x {self.layout.columns} patches of the "
                f"model's own images, and there are {count}; decay '1d' takes any number"
            )
        wide = torch.promote_types(query.dtype, torch.float32)
        decays = head_decays(self.num_heads, wide, query.device)
        parts = [self.in_order(part) for part in (query * self.scale, key, value)]
        return self.as_before(self.retain(parts[0], parts[1], parts[2], decays, self.layout))

    def in_order(self, part: Tensor) -> Tensor:
        """Tokens [batch, heads, prefix + n, head_dim] in the order in which they are read."""
        return torch.cat([part[:, :, self.prefix :], part[:, :, : self.prefix].flip(2)], 2)

    def as_before(self, part: Tensor) -> Tensor:
        """The inverse of `in_order`."""
        count = part.shape[2] - self.prefix
        return torch.cat([part[:, :, count:].flip(2), part[:, :, :count]], 2)


class BidirectionalRetention(Retention):
    """Of a sequence and its flip: tokens [batch, 2 * (prefix + n), dim] -> the same.

    First the prefix of the flip and of the sequence, then the patches of the sequence and of the
    flip, each in raster order; `prefix` counts both.
    """

    patches = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See the base. Raises InvalidInput for another number of patches than the model's."""
        if (count := query.shape[-2] - self.prefix) != 2 * self.patches:
            raise InvalidInput(
                f"a sequence and its flip have twice the {self.patches} patches of the model's "
                f"own images, and there are {count}"
            )
        return super().attend(query, key, value)

    def in_order(self, part: Tensor) -> Tensor:
        """See the base: patches, prefix, and the same from the end."""
        prefix, count = self.prefix // 2, self.patches
        of_flip, first, patches, flipped = part.split([prefix, prefix, count, count], 2)
        return torch.cat([patches, first.flip(2), of_flip, flipped.flip(2)], 2)

    def as_before(self, part: Tensor) -> Tensor:
        """See the base."""
        prefix, count = self.prefix // 2, self.patches
        patches, first, of_flip, flipped = part.split([count, prefix, prefix, count], 2)
        return torch.cat([of_flip, first.flip(2), patches, flipped.flip(2)], 2)


class RetentionTransformer(VisionTransformer):
    """timm's, with retention in every block; the weights of a `vit` with layer scale fit."""

    attention: type[Retention] = Retention

    def __init__(self, config: VisionRetention, num_classes: int) -> None:
        super().__init__(**config.arguments(), attn_layer=self.attention, num_classes=num_classes)
        by_chunks = partial(chunked, length=config.chunk)
        forms = {"parallel": parallel, "recurrent": recurrent, "chunk": by_chunks}
        for block in self.blocks:
            attention: Any = block.attn
            attention.retain = forms[config.form]
            attention.prefix = self.num_prefix_tokens
            if config.decay == "2d":
                attention.layout = Layout(*self.patch_embed.grid_size)


class BidirectionalTransformer(RetentionTransformer):
    """The same, of a sequence and its flip; for both orders there is one set of weights."""

    attention = BidirectionalRetention

    def __init__(self, config: VisionRetention, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.num_prefix_tokens *= 2
        for block in self.blocks:
            attention: Any = block.attn
            attention.prefix, attention.patches = self.num_prefix_tokens, self._patches

    @property
    def _patches(self) -> int:
        return int(self.patch_embed.num_patches)

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches [batch, n, width] -> [batch, 2 * (prefix + n), width], with positions."""
        tokens: Tensor = super()._pos_embed(x)
        prefix, patches = tokens.tensor_split((tokens.shape[1] - self._patches,), dim=1)
        return torch.cat([prefix, prefix, patches, patches], 1)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens as `BidirectionalRetention` has them -> [batch, width]; the mean is that of all
        patches of both orders."""
        if (pool_type or self.global_pool) == "token":
            return x[:, self.num_prefix_tokens + self._patches]
        pooled: Tensor = super().pool(x, pool_type)
        return pooled


class RetentionDeclaration(VitDeclaration):
    """Heads have decays of their own, and stay where they are; queries and keys of each may be
    mixed, and values in all of them alike."""

    def attention(self, at: str, attention: Any) -> Readers:
        heads, channels, width = attention.num_heads, attention.head_dim, attention.attn_dim
        values = f"{at}.vo"
        self.groups[values] = UnitGroup(channels, "invertible")
        for head in range(heads):
            products = f"{at}.qk.{head}"
            self.groups[products] = UnitGroup(channels, "invertible")
            for part, axis in enumerate((Axis(products), Axis(products, reads=True))):
                start = part * width + head * channels
                self._rows(f"{at}.qkv", attention.qkv, (axis,), (channels,), start)
        of_values = (NOTHING, Axis(values))
        self._rows(f"{at}.qkv", attention.qkv, of_values, (heads, channels), 2 * width)
        shape = (attention.proj.out_features, heads, channels)
        axes = (self.written, NOTHING, Axis(values, reads=True))
        self.piece(f"{at}.proj.weight", shape, axes)
        self.bias(f"{at}.proj", attention.proj, self.written)
        return [(f"{at}.qkv", attention.qkv)]

    def _rows(
        self, name: str, layer: Any, axes: tuple[Axis, ...], shape: tuple[int, ...], start: int
    ) -> None:
        rows = {"start": start, "stop": start + math.prod(shape)}
        self.piece(f"{name}.weight", (*shape, layer.in_features), (*axes, self.read), **rows)
        if layer.bias is not None:
            self.piece(f"{name}.bias", shape, axes, **rows)


_BASE = {"embed_dim": 768, "num_heads": 12}
_LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}


@architecture(
    "retention",
    paper="Hatamizadeh et al. 2023, arXiv 2310.19731",
    presets={
        "vir_small_patch16_224": {"embed_dim": 384, "num_heads": 6},
        "vir_base_patch16_224": _BASE,
        "vir_large_patch16_224": _LARGE,
        "vir_large_patch14_224": _LARGE | {"patch_size": 14},
    },
    symmetries=RetentionDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values", "form", "chunk"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def retention(config: VisionRetention, num_outputs: int) -> nn.Module:
    kind = BidirectionalTransformer if config.bidirectional else RetentionTransformer
    return kind(config, num_outputs)
