"""The symmetries of a vision transformer with structured linear layers, declared as data."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from vitarium.architectures.structured._linear import (
    CORES,
    BlockTensorTrain,
    KroneckerSum,
    LowRank,
    Monarch,
)
from vitarium.architectures.structured._query_key_value import QueryKeyValue
from vitarium.architectures.symmetries.base import Axis, Maps, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, STREAM, Readers
from vitarium.architectures.vit.vit import CosineQueries, PlainDeclaration

Units = tuple[Sequence[int], Sequence[Axis]]
"""Sizes and axes of a layer's outputs or inputs."""


class StructuredDeclaration(PlainDeclaration):
    """Groups beside those of a plain ViT: "blocks.0.mlp.fc1.rank", terms of a low-rank product or
    of a sum of Kronecker products, which any invertible map may mix (or exchange, where cores are
    normalized).

    Low-rank layers keep all groups of a plain ViT. The others fix the order of the units that they
    read and write: of the stream, of attention, and of hidden units, unless both layers of an MLP
    cut these alike. Then blocks of block tensor trains can be exchanged, and "blocks.0.mlp.inner"
    inside of them; of Kronecker products, both factors' indices. That the rank of each slice of a
    block tensor train can be mixed is not declared: slices are no units that could change places.
    """

    mixes_stream = False  # a norm's shift cannot be folded into a factor

    def embedding(self) -> None:
        """See the base."""
        if not all(_is_free(part) for part in self.model.modules()):
            self.groups.pop(STREAM, None)
            self.written = self.read = NOTHING
        super().embedding()

    def attention(self, at: str, attention: Any) -> Readers:
        """See the base."""
        is_split = isinstance(attention.qkv, QueryKeyValue)
        layers = [getattr(attention.qkv, n) for n in ("q", "k", "v")] if is_split else []
        layers.append(attention.proj)
        if all(isinstance(layer, nn.Linear) for layer in layers) and not is_split:
            return super().attention(at, attention)
        by_head, qk, vo = f"{at}.heads", f"{at}.qk", f"{at}.vo"
        sizes = attention.num_heads, attention.head_dim
        is_free = all(_is_free(layer) for layer in layers)
        maps: dict[str, Maps | None] = {qk: self.norms_of_logits(at, attention, is_free)}
        maps[vo] = "invertible"
        if is_free:
            self.groups[by_head] = UnitGroup(sizes[0])
        for name, how in maps.items():
            if is_free and how:
                exact = "permutation" if any(map(_is_normalized, layers)) else how
                self.groups[name] = UnitGroup(sizes[1], exact, inside=by_head)

        def units(channels: str, reads: bool = False) -> Units:
            group = channels if channels in self.groups else None
            return sizes, (Axis(by_head if is_free else None), Axis(group, reads))

        stream = (self.model.embed_dim,), (self.read,)
        parts = {"q": units(qk), "k": units(qk, reads=True), "v": units(vo)}
        width = sizes[0] * sizes[1]
        for number, (name, out) in enumerate(parts.items()):
            if is_split:
                self.layer(f"{at}.qkv.{name}", layers[number], out, stream)
            else:
                rows = {"start": number * width, "stop": (number + 1) * width}
                self.layer(f"{at}.qkv", attention.qkv, out, stream, **rows)
        written = (self.model.embed_dim,), (self.written,)
        self.layer(f"{at}.proj", attention.proj, written, units(vo, reads=True))
        return ()

    def norms_of_logits(self, at: str, attention: Any, is_free: bool) -> Maps | None:
        """Of queries and keys; how the channels between them may be mixed, None: not at all."""
        if isinstance(attention.q_norm, CosineQueries):
            heads = (Axis(f"{at}.heads" if is_free else None),)
            self.piece(f"{at}.q_norm.logit_scale", (attention.num_heads,), heads)
            return "orthogonal"
        for name in ("q_norm", "k_norm"):
            for kind, tensor in getattr(attention, name).state_dict().items():
                self.piece(f"{at}.{name}.{kind}", tensor.shape, (NOTHING,))
        return "invertible" if isinstance(attention.q_norm, nn.Identity) else None

    def scale(self, name: str, scale: Any, writer: str, layer: Any) -> None:
        """See the base; into factors it is not folded."""
        super().scale(name, scale, writer, layer)
        if not isinstance(layer, nn.Linear):
            self.scales = [each for each in self.scales if each.writer[0] != f"{writer}.weight"]

    def mlp(self, at: str, mlp: Any) -> Readers:
        """See the base."""
        first, last = mlp.fc1, mlp.fc2
        if isinstance(first, nn.Linear) and isinstance(last, nn.Linear):
            return super().mlp(at, mlp)
        cuts = {cut for cut in (_cut(first, outputs=True), _cut(last, outputs=False)) if cut}
        inner = f"{at}.inner"
        hidden: Units = (first.out_features,), (NOTHING,)
        read: Units = hidden
        if not cuts:
            self.groups[at] = UnitGroup(first.out_features)
            hidden, read = (hidden[0], (Axis(at),)), (hidden[0], (Axis(at, reads=True),))
        elif len(cuts) == 1 and (cut := cuts.pop())[0] != "fixed":
            kind, *sizes = cut
            self.groups[at] = UnitGroup(sizes[0])
            self.groups[inner] = UnitGroup(sizes[1], inside=at if kind == "nested" else None)
            hidden, read = (
                (sizes, (Axis(at), Axis(inner))),
                (
                    sizes,
                    (Axis(at, reads=True), Axis(inner, reads=True)),
                ),
            )
        width = (self.model.embed_dim,)
        self.layer(f"{at}.fc1", first, hidden, (width, (self.read,)))
        self.layer(f"{at}.fc2", last, (width, (self.written,)), read)
        return ()

    def layer(self, name: str, layer: Any, out: Units, into: Units, **rows: int) -> None:
        """A linear layer of any form, with the units of its outputs and inputs."""
        if isinstance(layer, nn.Linear):
            self.piece(f"{name}.weight", (*out[0], *into[0]), (*out[1], *into[1]), **rows)
        elif isinstance(layer, LowRank):
            rank = self.rank(name, layer)
            core_in, core_out = (f"{name}.{core}" for core in CORES)
            self.piece(core_in, (layer.rank, *into[0]), (rank, *into[1]))
            reads = Axis(rank.group, reads=True)
            self.piece(core_out, (*out[0], layer.rank), (*out[1], reads))
        else:
            self.grid(name, layer, _pair(out[1]), _pair(into[1]))
        if layer.bias is not None:
            self.piece(f"{name}.bias", out[0], tuple(out[1]), **rows)
        for core in CORES if _is_normalized(layer) else ():
            self.piece(f"{name}.{core}_gain", (1,), (NOTHING,))

    def grid(self, name: str, layer: Any, out: Sequence[Axis], into: Sequence[Axis]) -> None:
        """Cores of a layer whose outputs and inputs have two axes each."""
        core_in, core_out = (f"{name}.{core}" for core in CORES)
        if isinstance(layer, BlockTensorTrain):
            (m0, m1), (n0, n1), rank = layer.in_pair, layer.out_pair, layer.rank
            self.piece(core_in, (m1, m0, n0, rank), (*into, out[0], NOTHING))
            self.piece(core_out, (n0, n1, m1, rank), (*out, into[0], NOTHING))
        elif isinstance(layer, KroneckerSum):
            rank_axis = self.rank(name, layer)
            self.piece(core_in, layer.core_in.shape, (rank_axis, out[0], into[0]))
            reads = Axis(rank_axis.group, reads=True)
            self.piece(core_out, layer.core_out.shape, (reads, out[1], into[1]))
        else:
            for core, tensor in ((core_in, layer.core_in), (core_out, layer.core_out)):
                self.piece(core, tensor.shape, (NOTHING,) * 3)

    def rank(self, name: str, layer: LowRank | KroneckerSum) -> Axis:
        """The axis of its rank."""
        if layer.rank == 1:
            return NOTHING
        group = f"{name}.rank"
        self.groups[group] = UnitGroup(
            layer.rank, "permutation" if layer.normalized else "invertible"
        )
        return Axis(group)


def _is_free(part: nn.Module) -> bool:
    """Whether units that a layer reads or writes may change places, as far as it is concerned."""
    return not isinstance(part, BlockTensorTrain | KroneckerSum | Monarch)


def _is_normalized(layer: Any) -> bool:
    return bool(getattr(layer, "normalized", False))


def _pair(axes: Sequence[Axis]) -> Sequence[Axis]:
    return axes if len(axes) == 2 else (NOTHING, NOTHING)


def _cut(layer: nn.Module, *, outputs: bool) -> tuple[str, int, int] | tuple[str] | None:
    """How a layer cuts its outputs or inputs into two axes; None: not at all."""
    if isinstance(layer, BlockTensorTrain):
        return ("nested", *(layer.out_pair if outputs else layer.in_pair[::-1]))
    if isinstance(layer, KroneckerSum):
        return ("crossed", *(layer.out_pair if outputs else layer.in_pair))
    return ("fixed",) if isinstance(layer, Monarch) else None
