"""A vision transformer whose linear layers are low rank, block tensor trains, Monarch or Kronecker.

Layers, their initialization and rates are the paper's; it is otherwise `vit`, with timm's blocks.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from math import ceil, prod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.structured._linear import (
    CORES,
    BlockTensorTrain,
    KroneckerSum,
    LowRank,
    Monarch,
    Pair,
    StructuredLinear,
    even_pair,
    largest_rank,
)
from vitarium.architectures.structured._query_key_value import QueryKeyValue
from vitarium.architectures.structured._symmetries import StructuredDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, PlainVit, attend_by_cosines
from vitarium.core.config import Config

Layer = Literal["q", "k", "v", "proj", "fc1", "fc2"]
LAYERS: tuple[Layer, ...] = ("q", "k", "v", "proj", "fc1", "fc2")
"""Linear layers of a block."""
_ZERO: frozenset[Layer] = frozenset({"q", "proj", "fc2"})
"""Those that the paper starts at zero."""
_CLASSES: Mapping[str, type[StructuredLinear]] = {
    "low_rank": LowRank,
    "btt": BlockTensorTrain,
    "kronecker": KroneckerSum,
}
_MONARCH_BLOCKS = 4


def distinct(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """In their order in a block: other orders would be other ids of the same model.

    Raises ValueError for a layer that is named twice.
    """
    if len(set(layers)) < len(layers):
        raise ValueError(f"{', '.join(layers)} name a layer twice")
    return tuple(layer for layer in LAYERS if layer in layers)


class Structure(Config):
    """The form of the matrices of a transformer's linear layers."""

    structure: Literal["low_rank", "monarch", "btt", "kronecker"] = "btt"
    """Two thin factors (low_rank), two block-diagonal ones with a permutation between (monarch), a
    block tensor train (btt), or a sum of Kronecker products."""
    structured_layers: Annotated[
        tuple[Layer, ...], Field(min_length=1), AfterValidator(distinct)
    ] = LAYERS
    """Layers of each block that have it: q, k, v, proj (of attention), fc1, fc2 (of the MLP)."""
    rank: PositiveInt | None = None
    """Rank of the matrix (low_rank), of each slice (btt), or number of products (kronecker); null:
    the root of the layer's smaller size, rounded up (low_rank), or 1."""
    parameter_ratio: float | None = Field(None, gt=0, le=1)
    """Parameters of both factors, as a share of the matrix's, in place of a rank (low_rank)."""
    num_blocks: PositiveInt | None = None
    """Blocks of each block-diagonal factor (monarch); null: 4."""
    embed_pair: tuple[PositiveInt, PositiveInt] | None = None
    """Factors of embed_dim, whose product it is (btt, kronecker); null: the two closest to each
    other, the smaller first. The released code has [8, 24] for 192 and [16, 48] for 768."""
    hidden_pair: tuple[PositiveInt, PositiveInt] | None = None
    """Factors of an MLP's hidden width; as embed_pair."""

    def pairs(self, embed_dim: int, hidden_dim: int) -> dict[str, tuple[Pair, Pair]]:
        """By layer, the factors of its inputs and of its outputs."""
        embed = self.embed_pair or even_pair(embed_dim)
        hidden = self.hidden_pair or even_pair(hidden_dim)
        wide = {"fc1": (embed, hidden), "fc2": (hidden, embed)}
        return {name: wide.get(name, (embed, embed)) for name in LAYERS}

    def structure_mismatches(self, embed_dim: int, hidden_dim: int) -> Iterator[str]:
        """All that does not go together for a model of these widths."""
        for name, size in (("embed_pair", embed_dim), ("hidden_pair", hidden_dim)):
            pair = getattr(self, name)
            if pair and self.structure not in ("btt", "kronecker"):
                yield f"{name} is of btt and kronecker; leave it out of {self.structure}"
            elif pair and prod(pair) != size:
                yield f"{name} {list(pair)} are no factors of {size}"
        if self.parameter_ratio is not None and self.structure != "low_rank":
            yield f"parameter_ratio is of low_rank; leave it out of {self.structure}"
        elif self.parameter_ratio is not None and self.rank is not None:
            yield "rank and parameter_ratio say the same; leave one of them out"
        if self.structure == "monarch":
            if self.rank is not None:
                yield "the ranks of monarch follow from num_blocks; leave out rank"
            if (blocks := self.num_blocks or _MONARCH_BLOCKS) > min(embed_dim, hidden_dim):
                yield f"num_blocks {blocks} is more than the layers have inputs or outputs"
            return
        if self.num_blocks is not None:
            yield f"num_blocks is of monarch; leave it out of {self.structure}"
        pairs = self.pairs(embed_dim, hidden_dim)
        for layer in self.structured_layers:
            largest = largest_rank(_CLASSES[self.structure], *pairs[layer])
            if (self.rank or 1) > largest:
                yield f"rank {self.rank} is more than {largest}, with which {layer} is not limited"

    def rank_of(self, in_features: int, out_features: int) -> int:
        """Of a low-rank layer of these sizes; with a parameter_ratio int(mn ratio / (m + n))."""
        if self.parameter_ratio is not None:
            size = in_features * out_features
            return max(int(size * self.parameter_ratio / (in_features + out_features)), 1)
        return self.rank or ceil(min(in_features, out_features) ** 0.5)

    def layer(self, pairs: tuple[Pair, Pair], **more: bool) -> StructuredLinear:
        """A layer with these factors of its inputs and outputs, drawn at random."""
        inputs, outputs = map(prod, pairs)
        if self.structure == "monarch":
            return Monarch(inputs, outputs, self.num_blocks or _MONARCH_BLOCKS, **more)
        if self.structure == "low_rank":
            return LowRank(inputs, outputs, self.rank_of(inputs, outputs), **more)
        kind = BlockTensorTrain if self.structure == "btt" else KroneckerSum
        return kind(pairs[0], pairs[1], self.rank or 1, **more)


class StructuredVit(PlainVit, Structure):
    """`vit` with structured linear layers; by default ViT-Ti/16 of block tensor trains of rank 1.

    The patch embedding and the head stay dense. An `initialization` other than the default draws
    dense layers alone.
    """

    zero_init: bool = True
    """Start queries, the output projection and the MLP's second layer at zero where they are
    structured: their last factor is zero."""
    normalize_cores: bool = False
    """Divide each factor by its root mean square, where that is larger than at the start, and give
    it a learned gain."""
    lr_rule: Literal["mup", "equal"] = "mup"
    """Learning rate of each factor: the layer's inputs over its own, over 2, times the
    optimizer's, as suits Adam (mup); or the optimizer's (equal), which stacks need."""
    base_dim: PositiveInt | None = None
    """Width for which the learning rate was tuned: rates of all linear layers' weights, of a dense
    one's too, are base_dim / embed_dim times as high (muP); null: this model's."""

    @property
    def hidden_dim(self) -> int:
        """Width of the MLPs' hidden layer."""
        return int(self.embed_dim * self.mlp_ratio)

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.hidden_dim:
            yield from self.structure_mismatches(self.embed_dim, self.hidden_dim)


class StructuredVisionTransformer(VisionTransformer):
    """Its linear layers' weights learn at `width_ratio` times the rate."""

    width_ratio = 1.0

    def lr_multipliers(self) -> Mapping[str, float]:
        """Of the width; factors have more of their own."""
        names: list[str] = []
        for name, module in self.named_modules():
            if isinstance(module, StructuredLinear):
                names += [f"{name}.{core}" for core in CORES]
            elif isinstance(module, nn.Linear):
                names.append(f"{name}.weight")
        return {} if self.width_ratio == 1 else dict.fromkeys(names, self.width_ratio)


def _presets() -> dict[str, dict[str, Any]]:
    """The paper's ViT/32 of every width that it compares on ImageNet."""
    plain = {"patch_size": 32, "num_heads": 4, "qkv_bias": False, "attention": "qk_norm"}
    structures: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        "btt1": ({"rank": 1}, (256, 784, 1936)),
        "btt2": ({"rank": 2}, (144, 484, 1296)),
        "monarch4": ({"structure": "monarch", "num_blocks": 4}, (140, 316, 632)),
        "monarch16": ({"structure": "monarch", "num_blocks": 16}, (280, 632, 1264)),
    }
    return {
        f"{name}_vit_{width}_patch32_224": {**plain, **settings, "embed_dim": width}
        for name, (settings, widths) in structures.items()
        for width in widths
    }


@architecture(
    "structured_vit",
    paper="Qiu et al. 2024, arXiv 2406.06248",
    presets=_presets(),
    symmetries=StructuredDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values", "zero_init", "lr_rule", "base_dim"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def structured_vit(config: StructuredVit, num_outputs: int) -> nn.Module:
    """A ViT of structured linear layers: low rank, Monarch, block tensor train or Kronecker sum."""
    build: Any = partial(_block, config)
    model = StructuredVisionTransformer(
        **config.arguments(), block_fn=build, num_classes=num_outputs
    )
    if config.attention == "cosine":
        attend_by_cosines(model)
    if config.base_dim:
        model.width_ratio = config.base_dim / config.embed_dim
    return model


def _block(config: StructuredVit, **settings: Any) -> Block:
    """timm's block with structured layers in the place of those that are chosen."""
    block = Block(**settings)
    pairs = config.pairs(config.embed_dim, config.hidden_dim)

    def layer(name: Layer, bias: bool) -> nn.Module:
        if name not in config.structured_layers:
            inputs, outputs = map(prod, pairs[name])
            return nn.Linear(inputs, outputs, bias=bias)
        return config.layer(
            pairs[name],
            bias=bias,
            zero=config.zero_init and name in _ZERO,
            normalized=config.normalize_cores,
            mup_rates=config.lr_rule == "mup",
        )

    if {"q", "k", "v"} & set(config.structured_layers):
        q, k, v = (layer(name, config.qkv_bias) for name in LAYERS[:3])
        block.attn.qkv = QueryKeyValue(q, k, v)
    for name in config.structured_layers:
        if name not in LAYERS[:3]:
            setattr(block.attn if name == "proj" else block.mlp, name, layer(name, True))
    return block
