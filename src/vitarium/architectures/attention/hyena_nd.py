"""Hyena N-D: gates and a convolution as long as the grid of patches, in the place of attention.

The authors' code divides its convolutions by twice the side of the grid; these are the true ones.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium.architectures.attention._heads import NO_PROBABILITIES
from vitarium.architectures.attention._hyena import Directions, Filters, HyenaOperator, Window
from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class HyenaNd(Vit):
    """Hyena N-D, a ViT with gated long convolutions over the grid; by default of DeiT-Ti's shape.

    The head sees the mean of the patches: the authors' code reads the first patch, of which a
    convolution that looks up and to the left knows nothing but itself.
    """

    class_token: bool = False
    """Not to be set: the operator works on the grid of patches, which a class token has no cell
    of."""
    global_pool: Literal["avg"] = "avg"
    """Features that the head sees: the mean of the patches."""
    order: int = Field(2, ge=2)
    """Gates of the operator; it has one long convolution less."""
    filters: Filters = "product"
    """Filters of the long convolutions: an MLP of rows times one of columns (product); an MLP of
    both (2d); or free numbers (direct)."""
    filter_width: PositiveInt = 64
    """Hidden units of the filters' MLPs."""
    window: Window = "fixed"
    """Exponential decay of the filters along both axes, faster from channel to channel: fixed, with
    learned rates, or none; direct filters have none."""
    directions: Directions = "causal"
    """Cells that one sees: above and to the left (causal); below and to the right in every other
    operator from the first (alternating); or all, by the same filters on the map and its flips,
    joined by a weight for each flip (four), a matrix of all their channels (four_channels), or,
    with gates and values of its own for each flip, the output projection (four_branches)."""
    attention_blocks: Literal["none", "first", "last", "alternating"] = "none"
    """Blocks with softmax attention in the place of the operator: none, the first half, the last
    half, or every other block from the second."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        for name, value in (("class_token", self.class_token), ("reg_tokens", self.reg_tokens)):
            if value:
                yield f"{name} {value}: the operator works on the grid of patches alone; leave it"
        if self.attn_drop_rate and self.attention_blocks == "none":
            yield NO_PROBABILITIES.format("Hyena's operator")
        if self.filters == "direct" and self.window != "fixed":
            yield f"window '{self.window}' is of computed filters, and filters is 'direct'"

    def has_attention(self, block: int) -> bool:
        """Whether that block, from 0, has softmax attention."""
        before = {"first": self.depth // 2, "last": (self.depth + 1) // 2}.get(
            self.attention_blocks, 0
        )
        if self.attention_blocks == "alternating":
            return block % 2 == 1
        return block >= before if self.attention_blocks == "last" else block < before

    def operator(self, number: int) -> HyenaOperator:
        """The operator that is the number-th of the model's, from 0."""
        return HyenaOperator(
            self.embed_dim,
            self.img_size // self.patch_size,
            order=self.order,
            filters=self.filters,
            filter_width=self.filter_width,
            window=self.window,
            directions=self.directions,
            flipped=number % 2 == 0,
            bias=self.qkv_bias,
            proj_drop=self.proj_drop_rate,
        )


class HyenaTransformer(VisionTransformer):
    """timm's, with the operator as `attn` of the blocks that have no attention."""

    def __init__(self, config: HyenaNd, num_classes: int) -> None:
        super().__init__(**config.arguments(), num_classes=num_classes)
        operators = [b for b in range(config.depth) if not config.has_attention(b)]
        for number, block in enumerate(operators):
            self.set_submodule(f"blocks.{block}.attn", config.operator(number))


class HyenaDeclaration(VitDeclaration):
    """Channels of an operator can be exchanged where no fixed window tells them apart."""

    def attention(self, at: str, attention: Any) -> Readers:
        if not isinstance(attention, HyenaOperator):
            return super().attention(at, attention)
        order, dim, branches = attention.order, attention.dim, attention.branches
        channels, is_read = NOTHING, NOTHING
        if attention.filter_kind == "direct" or attention.window != "fixed":
            self.groups[f"{at}.channels"] = UnitGroup(dim)
            channels, is_read = (Axis(f"{at}.channels", reads=reads) for reads in (False, True))
        of_parts = (NOTHING, channels)
        parts = (order + 1, dim)
        self.piece(
            f"{at}.in_proj.weight", (*parts, attention.in_proj.in_features), (*of_parts, self.read)
        )
        if attention.in_proj.bias is not None:
            self.piece(f"{at}.in_proj.bias", parts, of_parts)
        self.piece(
            f"{at}.short_filter.weight", (*parts, branches, 9), (*of_parts, NOTHING, NOTHING)
        )
        self.piece(f"{at}.short_filter.bias", (*parts, branches), (*of_parts, NOTHING))
        self.piece(f"{at}.bias", (order - 1, dim), of_parts)
        self._filters(at, attention, of_parts)
        out, mixed = self.written, is_read
        if attention.directions == "four":
            self.piece(f"{at}.mix.weight", (1, 4), (NOTHING, NOTHING))
            self.piece(f"{at}.mix.bias", (1,), (NOTHING,))
        elif attention.directions == "four_channels":
            self.groups[f"{at}.mix"] = UnitGroup(dim, "invertible")
            joined = Axis(f"{at}.mix")
            self.piece(f"{at}.mix.weight", (dim, 4, dim), (joined, NOTHING, is_read))
            self.piece(f"{at}.mix.bias", (dim,), (joined,))
            mixed = Axis(f"{at}.mix", reads=True)
        shape = (attention.proj.out_features, branches, dim)
        self.piece(f"{at}.proj.weight", shape, (out, NOTHING, mixed))
        self.bias(f"{at}.proj", attention.proj, out)
        return [(f"{at}.in_proj", attention.in_proj)]

    def _filters(self, at: str, attention: HyenaOperator, of_parts: tuple[Axis, Axis]) -> None:
        parts = (attention.order - 1, attention.dim)
        for name, tensor in attention.state_dict().items():
            if name == "filters":
                self.piece(f"{at}.{name}", tensor.shape, (*of_parts, NOTHING, NOTHING))
            elif name == "filter_fn.rates":
                self.piece(f"{at}.{name}", (2, *parts), (NOTHING, *of_parts))
            elif name.startswith("filter_fn.mlps.") and ".3." in name:  # the last layer
                self.piece(f"{at}.{name}", (*parts, tensor.shape[1]), (*of_parts, NOTHING))
            elif name.startswith("filter_fn."):
                self.piece(f"{at}.{name}", tensor.shape, (NOTHING,) * tensor.ndim)


@architecture(
    "hyena_nd",
    paper="Zimerman and Wolf 2024, arXiv 2309.13600",
    presets={
        "hyena_nd_tiny_patch16_224": {},
        "hyena_nd_small_patch16_224": {"embed_dim": 384, "num_heads": 6},
        "hyena_nd_base_patch16_224": {"embed_dim": 768, "num_heads": 12},
    },
    symmetries=HyenaDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2},
)
def hyena_nd(config: HyenaNd, num_outputs: int) -> nn.Module:
    return HyenaTransformer(config, num_outputs)
