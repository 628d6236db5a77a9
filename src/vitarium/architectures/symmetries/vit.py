"""The symmetries of timm's VisionTransformer, declared as data."""

from collections.abc import Sequence
from typing import Any

from timm.layers.attention import Attention
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.architectures.heads import MeanOfHeads
from vitarium.architectures.symmetries.base import (
    Axis,
    Maps,
    Norm,
    Piece,
    Scale,
    Symmetries,
    UnitGroup,
)
from vitarium.core.errors import IncompatibleWeights

STREAM = "stream"
_STREAM_NORMS = ("norm", "fc_norm", "norm1", "norm2")
NOTHING = Axis()
Readers = Sequence[tuple[str, Any]]
"""Linear layers, by name, that read the stream after a norm."""


class VitDeclaration:
    """Goes through a timm VisionTransformer once, and notes what every tensor has on its axes.

    Architectures of that class with parts of their own override the method of the part
    (`embedding`, `block`, `attention`, `mlp`), which notes its tensors by `piece`, `linear`, `norm`
    and `scale`, and are registered with `symmetries=TheirDeclaration.symmetries`.

    Groups: "stream" (the residual stream), and of each block "blocks.0.attn.heads", inside of them
    "blocks.0.attn.qk" and "blocks.0.attn.vo" (channels between queries and keys, and between values
    and the projection), "blocks.0.mlp" (hidden units); "head.hidden" of a head that is an MLP.
    """

    mixes_stream = True
    """Whether linear layers alone read the stream after its norms, so that its channels may be
    mixed; depthwise convolutions of the stream, for one, let them be exchanged alone."""
    model_class: type[nn.Module] = VisionTransformer
    """Of the models whose symmetries it declares; of another class, override `declare` as well."""

    @classmethod
    def symmetries(cls, model: nn.Module) -> Symmetries:
        """Of a built model.

        Raises IncompatibleWeights that names a tensor whose symmetries are not declared.
        """
        kind = type(model).__name__
        if not isinstance(model, cls.model_class):
            raise IncompatibleWeights(f"{kind} declares no symmetries")
        declared = cls(model)
        declared_tensors = {piece.tensor for piece in declared.pieces}
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name not in declared_tensors:
                raise IncompatibleWeights(f"{kind}: which symmetries {name} has is not declared")
        pieces, norms = tuple(declared.pieces), tuple(declared.norms)
        return Symmetries(declared.groups, pieces, norms, tuple(declared.scales))

    def __init__(self, model: Any) -> None:
        self.model = model
        self.groups: dict[str, UnitGroup] = {}
        self.pieces: list[Piece] = []
        self.norms: list[Norm] = []
        self.scales: list[Scale] = []
        self.heads = _heads("head", model.head)
        self.declare()

    def declare(self) -> None:
        """Of the stream, and all that reads it and writes to it."""
        model = self.model
        # A model without head gives out its features: their order is part of what it computes.
        moves = all(self.heads)
        parts = [p for n, p in model.named_modules() if n.rpartition(".")[2] in _STREAM_NORMS]
        norms = [part for part in parts if not isinstance(part, nn.Identity)]
        folds = all(isinstance(n, nn.LayerNorm) and n.elementwise_affine for n in norms)
        mixes = self.mixes_stream and folds and model.global_pool in ("token", "avg")
        # what these write is no input of a linear layer alone
        mixes = (
            mixes
            and _is_absent(model.norm_pre)
            and _is_absent(getattr(model.patch_embed, "norm", nn.Identity()))
        )
        # one after the other: what is between them is read by no linear layer
        mixes = mixes and nn.Identity in (type(model.norm), type(model.fc_norm))
        if moves:
            size = model.embed_dim
            self.groups[STREAM] = UnitGroup(size, "orthogonal" if mixes else "permutation")
        self.written = Axis(STREAM if moves else None)
        self.read = Axis(STREAM if moves else None, reads=True)
        self.embedding()
        for number, block in enumerate(model.blocks):
            self.block(f"blocks.{number}", block)
        self.head()

    def embedding(self) -> None:
        """Of patches, and the tokens and positions that are added.

        Raises IncompatibleWeights for another kind than timm's PatchEmbed.
        """
        model = self.model
        if type(model.patch_embed) is not PatchEmbed:
            kind = type(model.patch_embed).__name__
            raise IncompatibleWeights(f"patch_embed: the symmetries of a {kind} are not declared")
        self.linear("patch_embed.proj", self.written, NOTHING, model.patch_embed.proj)
        self.norm("patch_embed.norm", model.patch_embed.norm, ())
        self.tokens()

    def tokens(self) -> None:
        """What is added to patches, and stands before them."""
        model = self.model
        for name in ("cls_token", "reg_token", "pos_embed"):
            tensor = getattr(model, name, None)
            if tensor is not None:
                self.piece(name, tensor.shape, (NOTHING, NOTHING, self.written))
        self.norm("norm_pre", model.norm_pre, ())

    def block(self, at: str, block: Any) -> None:
        """Raises IncompatibleWeights for another kind than the plain pre-norm block."""
        if type(block) is not Block:
            kind = type(block).__name__
            raise IncompatibleWeights(f"{at}: the symmetries of a {kind} are not declared")
        self.branches(at, block)

    def branches(self, at: str, block: Any) -> None:
        """Of a block: attention and MLP, each after a norm, and the layer scales."""
        self.norm(f"{at}.norm1", block.norm1, self.attention(f"{at}.attn", block.attn))
        self.scale(f"{at}.ls1", block.ls1, f"{at}.attn.proj", block.attn.proj)
        self.norm(f"{at}.norm2", block.norm2, self.mlp(f"{at}.mlp", block.mlp))
        self.scale(f"{at}.ls2", block.ls2, f"{at}.mlp.fc2", block.mlp.fc2)

    def attention(self, at: str, attention: Any) -> Readers:
        """Softmax attention by heads. Raises IncompatibleWeights for another kind."""
        if type(attention) is not Attention:
            kind = type(attention).__name__
            raise IncompatibleWeights(f"{at}: the symmetries of a {kind} are not declared")
        self.heads_of(at, attention, normed=not isinstance(attention.q_norm, nn.Identity))
        return [(f"{at}.qkv", attention.qkv)]

    def heads_of(
        self, at: str, attention: Any, *, normed: bool, logits_of: Maps = "invertible"
    ) -> None:
        """Of any attention with `num_heads`, `head_dim`, a packed `qkv` and `proj`.

        `normed`: queries and keys are read by more than their inner products, as by norms;
        `logits_of`: else, how the channels between them may be mixed.
        """
        heads, channels = attention.num_heads, attention.head_dim
        by_head, qk, vo = f"{at}.heads", f"{at}.qk", f"{at}.vo"
        self.groups[by_head] = UnitGroup(heads)
        for name in ("q_norm", "k_norm") if normed else ():
            if norm := getattr(attention, name, None):
                for kind, tensor in norm.state_dict().items():
                    self.piece(f"{at}.{name}.{kind}", tensor.shape, (NOTHING,))
        if not normed:  # else its channels are not alike
            self.groups[qk] = UnitGroup(channels, logits_of, inside=by_head)
        self.groups[vo] = UnitGroup(channels, "invertible", inside=by_head)
        width = heads * channels
        inner = [Axis(None if normed else qk), Axis(None if normed else qk, reads=True), Axis(vo)]
        for part, axis in enumerate(inner):
            rows = {"start": part * width, "stop": (part + 1) * width}
            shape = (heads, channels, attention.qkv.in_features)
            axes = (Axis(by_head), axis, self.read)
            self.piece(f"{at}.qkv.weight", shape, axes, **rows)
            if attention.qkv.bias is not None:
                self.piece(f"{at}.qkv.bias", shape[:2], axes[:2], **rows)
        shape = (attention.proj.out_features, heads, channels)
        self.piece(f"{at}.proj.weight", shape, (self.written, Axis(by_head), Axis(vo, reads=True)))
        self.bias(f"{at}.proj", attention.proj, self.written)

    def mlp(self, at: str, mlp: Any) -> Readers:
        """Raises IncompatibleWeights for another kind than timm's MLPs."""
        first = _first_layers(at, mlp)
        hidden = mlp.fc2.in_features
        self.groups[at] = UnitGroup(hidden)
        for name, layer in first:
            # a packed gated MLP has gates and values in one layer, SwiGLU in two
            shape = (layer.out_features // hidden, hidden, layer.in_features)
            axes = (NOTHING, Axis(at), self.read)
            self.piece(f"{name}.weight", shape, axes)
            if layer.bias is not None:
                self.piece(f"{name}.bias", shape[:2], axes[:2])
        self.linear(f"{at}.fc2", self.written, Axis(at, reads=True), mlp.fc2)
        return first

    def head(self) -> None:
        model = self.model
        for name in ("norm", "fc_norm"):
            self.norm(name, getattr(model, name), [layers[0] for layers in self.heads if layers])
        for layers in self.heads:
            self.layers(layers)

    def layers(self, layers: Sequence[tuple[str, nn.Linear]]) -> None:
        """Of a head: each reads what the one before it writes."""
        model, incoming = self.model, self.read
        for number, (name, layer) in enumerate(layers):
            last = number == len(layers) - 1
            out = NOTHING if last else Axis(f"{name}.hidden")
            if not last:
                self.groups[f"{name}.hidden"] = UnitGroup(layer.out_features)
            width = model.embed_dim if number == 0 else layer.in_features
            shape = (layer.out_features, layer.in_features // width, width)
            self.piece(f"{name}.weight", shape, (out, NOTHING, incoming))
            self.bias(name, layer, out)
            incoming = Axis(out.group, reads=True)

    # What tensors are made of

    def norm(self, name: str, norm: nn.Module, readers: Readers) -> None:
        if isinstance(norm, nn.Identity):
            return
        tensors = norm.state_dict()
        for kind, tensor in tensors.items():
            self.piece(f"{name}.{kind}", tensor.shape, (self.written,), elementwise=True)
        group = self.written.group
        if group and self.groups[group].maps == "orthogonal":
            bias = f"{name}.bias" if "bias" in tensors else None
            listed = tuple(_tensors_of(*reader) for reader in readers)
            self.norms.append(Norm(group, f"{name}.weight", bias, listed))

    def scale(self, name: str, scale: Any, writer: str, layer: Any) -> None:
        if not isinstance(scale, nn.Identity):
            self.piece(f"{name}.gamma", scale.gamma.shape, (self.written,), elementwise=True)
            self.scales.append(Scale(f"{name}.gamma", _tensors_of(writer, layer)))

    def linear(self, name: str, out: Axis, into: Axis, layer: Any) -> None:
        """A linear layer, or a convolution seen as one."""
        weight = layer.weight
        self.piece(f"{name}.weight", (len(weight), weight[0].numel()), (out, into))
        self.bias(name, layer, out)

    def bias(self, name: str, layer: Any, out: Axis) -> None:
        if layer.bias is not None:
            self.piece(f"{name}.bias", layer.bias.shape, (out,))

    def piece(self, tensor: str, shape: Sequence[int], axes: tuple[Axis, ...], **more: Any) -> None:
        self.pieces.append(Piece(tensor, tuple(shape), axes, **more))


vit_symmetries = VitDeclaration.symmetries
"""Of any model of timm's class whose blocks are the plain ones, with a head of ours."""


def _is_absent(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def _first_layers(at: str, mlp: Any) -> list[tuple[str, nn.Linear]]:
    """The layers of an MLP that read the stream. Raises IncompatibleWeights for another kind."""
    names = {Mlp: ("fc1",), GluMlp: ("fc1",), SwiGLU: ("fc1_g", "fc1_x")}.get(type(mlp), ())
    layers = [(f"{at}.{name}", getattr(mlp, name)) for name in names]
    linear = all(isinstance(layer, nn.Linear) for _, layer in layers)
    if not layers or not linear or not _is_absent(mlp.norm):
        raise IncompatibleWeights(f"{at}: a {type(mlp).__name__}'s symmetries are not declared")
    return layers


def _tensors_of(name: str, layer: Any) -> tuple[str, str | None]:
    return f"{name}.weight", None if layer.bias is None else f"{name}.bias"


def _heads(name: str, head: nn.Module) -> list[list[tuple[str, nn.Linear]]]:
    """The linear layers of a head, or of each of several side by side."""
    if isinstance(head, MeanOfHeads):
        return [
            layers for at, part in head.named_children() for layers in _heads(f"{name}.{at}", part)
        ]
    return [[(name, head)] if isinstance(head, nn.Linear) else _linears(name, head)]


def _linears(name: str, head: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Of a head that is an MLP with pointwise activations between."""
    if not isinstance(head, nn.Sequential | nn.Identity):
        raise IncompatibleWeights(f"{name}: a {type(head).__name__}'s symmetries are not declared")
    layers = []
    for index, layer in head.named_children():
        if isinstance(layer, nn.Linear):
            layers.append((f"{name}.{index}", layer))
        elif next(layer.parameters(), None) is not None:
            raise IncompatibleWeights(f"{name}.{index}: {type(layer).__name__} is not declared")
    return layers
