"""Plain ViTs of which some channels, heads and hidden units are left."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import PlainVit, Vit
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose

RemainingUnits = Mapping[str, Tensor]
"""By group of the symmetries, numbers of the units that stay, int64 [m]: "stream",
"blocks.0.attn.heads", "blocks.0.mlp". Of a group that is missing all stay."""


class Sizes(NamedTuple):
    """Of a plain ViT; `hidden` are the hidden units of each MLP."""

    embed_dim: int
    num_heads: int
    hidden: int


def sizes_of(config: PlainVit) -> Sizes:
    return Sizes(config.embed_dim, config.num_heads, int(config.embed_dim * config.mlp_ratio))


def smaller(architecture: Section, sizes: Sizes) -> Section:
    """A `vit` with other sizes, or where heads no longer fill its width an `uneven_vit`.

    Heads have as many channels as before, and so the same scale of the logits. Raises
    IncompatibleWeights where an `uneven_vit` would need what it has not.
    """
    vit: Any = architecture.config
    head_dim = vit.embed_dim // vit.num_heads
    values = architecture.factors(defaults=False)
    factors: dict[str, Any] = {name: value for name, value in values.items() if name != "name"}
    factors |= {"embed_dim": sizes.embed_dim, "num_heads": sizes.num_heads}
    factors["mlp_ratio"] = ratio(sizes.hidden, sizes.embed_dim)
    if sizes.num_heads * head_dim == sizes.embed_dim:
        return choose("architecture", "vit", **factors)
    if extra := sorted(factors.keys() - Vit.model_fields.keys()):
        raise IncompatibleWeights(
            f"{sizes.num_heads} heads of {head_dim} channels do not fill {sizes.embed_dim} "
            f"channels, and only a ViT without {extra[0]} can have that; keep as many of both"
        )
    return choose("architecture", "uneven_vit", **factors, head_dim=head_dim)


def sliced(
    symmetries: Symmetries,
    weights: Mapping[str, Tensor],
    remaining: RemainingUnits,
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, Tensor]:
    """The weights of the units that stay, by name, in their order: tensors of these shapes.

    Heads and hidden units that are left out are as if what reads them was zero. Channels of the
    stream are not: a LayerNorm takes its mean and variance of those that stay.
    """
    pieces: dict[str, list[Tensor]] = {}
    for piece in symmetries.pieces:
        part = piece.of(weights)
        for dim, axis in enumerate(piece.axes):
            if axis.group is not None and axis.group in remaining:
                part = part.index_select(dim, remaining[axis.group].to(part.device))
        pieces.setdefault(piece.tensor, []).append(part.flatten())
    return {name: torch.cat(parts).reshape(shapes[name]) for name, parts in pieces.items()}
