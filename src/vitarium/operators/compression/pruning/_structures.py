"""The structures of a ViT that can be made smaller: its stream, heads, their channels, MLPs."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitarium.architectures.elastic._uneven_attention import UnevenAttention
from vitarium.architectures.elastic.uneven_vit import UnevenVit
from vitarium.architectures.symmetries.base import Piece, Symmetries
from vitarium.architectures.symmetries.vit import STREAM
from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import PlainVit, Vit
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.compression._plain_models import vit_section

Selection = Mapping[str, Tensor]
"""By group of the symmetries, the numbers of the units that stay, int64 [n], rising. The channels
of heads have one set of numbers for all heads of a block."""
OF_BLOCK: Mapping[str, str] = {
    "heads": "attn.heads",
    "qk_dims": "attn.qk",
    "v_dims": "attn.vo",
    "hidden": "mlp",
}
"""By a factor of `uneven_vit`, the group of a block."""


class Sizes(NamedTuple):
    """How many units each structure of a ViT has; of those of blocks, one number for each block."""

    embed_dim: int
    head_dim: int
    """Of the attention's scale, which pruning leaves as it is."""
    heads: tuple[int, ...]
    qk_dims: tuple[int, ...]
    v_dims: tuple[int, ...]
    hidden: tuple[int, ...]

    @classmethod
    def of(cls, model: Any) -> "Sizes":
        """Those of a built `vit` or `uneven_vit`."""
        attention = [block.attn for block in model.blocks]
        is_uneven = isinstance(attention[0], UnevenAttention)
        channels = round(attention[0].scale ** -2)
        return cls(
            embed_dim=model.embed_dim,
            head_dim=channels,
            heads=tuple(attn.num_heads for attn in attention),
            qk_dims=tuple(attn.qk_dim if is_uneven else channels for attn in attention),
            v_dims=tuple(attn.v_dim if is_uneven else channels for attn in attention),
            hidden=tuple(block.mlp.fc1.out_features for block in model.blocks),
        )

    @classmethod
    def of_section(cls, architecture: Section) -> "Sizes":
        """Those of an architecture."""
        with meta_device():
            return cls.of(architecture(1))

    def groups(self) -> dict[str, int]:
        """Units by group of the symmetries; "stream", then those of blocks."""
        sizes = {STREAM: self.embed_dim}
        for group, factor in self.structures().items():
            if group != STREAM:
                sizes[group] = getattr(self, factor)[int(group.split(".")[1])]
        return sizes

    def structures(self) -> dict[str, str]:
        """By group, the factor that has its number of units."""
        blocks = {
            f"blocks.{number}.{group}": factor
            for (factor, group), number in product(OF_BLOCK.items(), range(len(self.heads)))
        }
        return {STREAM: "embed_dim", **blocks}

    def remaining(self) -> dict[str, Any]:
        """By factor, what pruning changes."""
        return {name: size for name, size in self._asdict().items() if name != "head_dim"}

    def with_groups(self, sizes: Mapping[str, int]) -> "Sizes":
        """Those with other numbers of units of some groups."""
        current = self.groups() | dict(sizes)
        blocks = range(len(self.heads))
        changed: dict[str, Any] = {
            factor: tuple(current[f"blocks.{number}.{group}"] for number in blocks)
            for factor, group in OF_BLOCK.items()
        }
        return self._replace(embed_dim=current[STREAM], **changed)

    def section(self, architecture: Section) -> Section:
        """The `vit` or `uneven_vit` of these sizes, with as many blocks, that is otherwise as an
        architecture is."""
        factors = architecture.factors(defaults=False)
        shared: dict[str, Any] = {n: factors[n] for n in Vit.model_fields if n in factors}
        shared |= {"embed_dim": self.embed_dim, "depth": len(self.heads)}
        hidden = set(self.hidden)
        if len(hidden) == 1:
            shared["mlp_ratio"] = ratio(self.hidden[0], self.embed_dim)
        heads, channels = set(self.heads), {*self.qk_dims, *self.v_dims}
        if len(heads) == 1:
            shared["num_heads"] = self.heads[0]
        fills = len(heads) == 1 and self.heads[0] * self.head_dim == self.embed_dim
        if fills and len(hidden) == 1 and channels == {self.head_dim}:
            return choose("architecture", "vit", **shared)
        uneven: dict[str, Any] = {"head_dim": self.head_dim}
        uneven |= {"hidden": self.hidden} if len(hidden) > 1 else {}
        uneven |= {"heads": self.heads} if len(heads) > 1 else {}
        if channels != {self.head_dim}:
            uneven |= {"qk_dims": self.qk_dims, "v_dims": self.v_dims}
        return choose("architecture", "uneven_vit", **shared, **uneven)


def prunable(architecture: Section | None, purpose: str) -> Section:
    """A `vit`, or that of a plain ViT of timm, or an `uneven_vit`.

    Raises IncompatibleWeights for anything else, and for attention and layer scales that an
    `uneven_vit` does not have.
    """
    if architecture and type(architecture.config) is UnevenVit:
        return architecture
    section = vit_section(architecture, purpose)
    config = section.config
    assert isinstance(config, PlainVit)
    extra = f"attention '{config.attention}'" if config.attention != "softmax" else ""
    if extra or config.init_values is not None:
        fault = extra or "layer scales (init_values)"
        raise IncompatibleWeights(f"{purpose} needs a vit without {fault}; name another model")
    return section


def sliced(
    symmetries: Symmetries, weights: Mapping[str, Tensor], selected: Selection, sizes: Sizes
) -> Iterator[tuple[str, Tensor]]:
    """The tensors [*shape] of the smaller model, by their names in it, from those of the model."""
    pieces: dict[str, list[Piece]] = {}
    for piece in symmetries.pieces:
        pieces.setdefault(piece.tensor, []).append(piece)
    is_uneven = {*sizes.qk_dims, *sizes.v_dims} != {sizes.head_dim}
    for name, in_order in pieces.items():
        weight = weights[name]
        parts = [_cut(piece, weight, selected) for piece in in_order]
        if is_uneven and ".attn.qkv." in name:
            yield name.replace("attn.qkv", "attn.qk"), torch.cat(parts[:2])
            yield name.replace("attn.qkv", "attn.v"), parts[2]
        else:
            yield name, torch.cat(parts)


def _cut(piece: Piece, weight: Tensor, selected: Selection) -> Tensor:
    """The rows of a piece with the units that stay, with as many axes as the tensor has."""
    rows, part = weight[piece.start : piece.stop], piece.of({piece.tensor: weight})
    for number, axis in enumerate(piece.axes):
        if axis.group and axis.group in selected:
            part = part.index_select(number, selected[axis.group])
    if part.ndim == weight.ndim:
        return part
    if weight.ndim == 1:
        return part.flatten()
    # the first axes are those of the tensor's rows
    of_rows = next(n for n in range(1, part.ndim) if prod(piece.shape[:n]) == len(rows))
    rest = rows.shape[1:] if part.shape[of_rows:] == piece.shape[of_rows:] else (-1,)
    return part.reshape(prod(part.shape[:of_rows]), *rest)


def unit_sums(symmetries: Symmetries, values: Mapping[str, Tensor], group: str) -> Tensor:
    """Sums over the parameters that a unit of the group is judged by, float64 [units].

    Of a head its queries, keys and values, biases included; of a channel of queries and keys the
    query's; of one of values the value's; of a hidden unit what it reads by; of a channel of the
    stream all rows and columns of the patch embedding and of the blocks' linear layers that are its
    own (NViT, as released).

    Args:
        values: one for each parameter, by its name [*shape].
    """
    total = torch.zeros(symmetries.groups[group].size, dtype=torch.float64)
    for piece, axis in symmetries.having(group):
        if _counts(piece, axis, group):
            remaining = [number for number in range(len(piece.shape)) if number != axis]
            part = piece.of(values).double()
            total += (part.sum(remaining) if remaining else part).cpu()
    return total


def _counts(piece: Piece, axis: int, group: str) -> bool:
    name = piece.tensor
    if group == STREAM:
        return name.startswith("patch_embed.proj.") or ".attn." in name or ".mlp." in name
    return not piece.axes[axis].reads and ".proj." not in name
