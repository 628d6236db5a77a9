"""The symmetries of timm's VisionTransformer, declared as data."""

from collections.abc import Sequence
from typing import Any

from timm.layers.attention import Attention
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.architectures.heads import MeanOfHeads
from vitarium.architectures.symmetries.base import Axis, Norm, Piece, Scale, Symmetries, UnitGroup
from vitarium.core.errors import IncompatibleWeights

STREAM = "stream"
_STREAM_NORMS = ("norm", "fc_norm", "norm1", "norm2")
NOTHING = Axis()


def vit_symmetries(model: nn.Module) -> Symmetries:
    """Of any model of that class whose blocks are the plain ones, with a head of ours.

    Groups: "stream" (the residual stream), and of each block "blocks.0.attn.heads", inside of them
    "blocks.0.attn.qk" and "blocks.0.attn.vo" (channels between queries and keys, and between values
    and the projection), "blocks.0.mlp" (hidden units); "head.hidden" of a head that is an MLP.

    Raises IncompatibleWeights that names a tensor whose symmetries are not declared.
    """
    if not isinstance(model, VisionTransformer):
        raise IncompatibleWeights(f"{type(model).__name__} declares no symmetries")
    if type(model.patch_embed) is not PatchEmbed:
        embedding = type(model.patch_embed).__name__
        raise IncompatibleWeights(f"patch_embed: the symmetries of a {embedding} are not declared")
    declared, kind = _Declaration(model), type(model).__name__
    declared_tensors = {piece.tensor for piece in declared.pieces}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name not in declared_tensors:
            raise IncompatibleWeights(f"{kind}: which symmetries {name} has is not declared")
    pieces, norms, scales = tuple(declared.pieces), tuple(declared.norms), tuple(declared.scales)
    return Symmetries(declared.groups, pieces, norms, scales)


class _Declaration:
    """Goes through the model once, and notes what every tensor has on its axes."""

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model
        self.groups: dict[str, UnitGroup] = {}
        self.pieces: list[Piece] = []
        self.norms: list[Norm] = []
        self.scales: list[Scale] = []
        self.heads = _heads("head", model.head)
        # A model without head gives out its features: their order is part of what it computes.
        moves = all(self.heads)
        parts = [p for n, p in model.named_modules() if n.rpartition(".")[2] in _STREAM_NORMS]
        norms = [part for part in parts if not isinstance(part, nn.Identity)]
        folds = all(isinstance(n, nn.LayerNorm) and n.elementwise_affine for n in norms)
        mixes = folds and model.global_pool in ("token", "avg")
        # what these write is no input of a linear layer alone
        mixes = mixes and _is_absent(model.norm_pre) and _is_absent(model.patch_embed.norm)
        # one after the other: what is between them is read by no linear layer
        mixes = mixes and nn.Identity in (type(model.norm), type(model.fc_norm))
        if moves:
            size = model.embed_dim
            self.groups[STREAM] = UnitGroup(size, "orthogonal" if mixes else "permutation")
        self.written = Axis(STREAM if moves else None)
        self.read = Axis(STREAM if moves else None, reads=True)
        self._embedding()
        for number, block in enumerate(model.blocks):
            self._block(f"blocks.{number}", block)
        self._head()

    def _embedding(self) -> None:
        model = self.model
        self._linear("patch_embed.proj", self.written, NOTHING, model.patch_embed.proj)
        self._norm("patch_embed.norm", model.patch_embed.norm, ())
        for name in ("cls_token", "reg_token", "pos_embed"):
            tensor = getattr(model, name, None)
            if tensor is not None:
                self._piece(name, tensor.shape, (NOTHING, NOTHING, self.written))
        self._norm("norm_pre", model.norm_pre, ())

    def _block(self, at: str, block: Any) -> None:
        if type(block) is not Block or type(block.attn) is not Attention:
            kinds = f"{type(block).__name__} with {type(getattr(block, 'attn', None)).__name__}"
            raise IncompatibleWeights(f"{at}: the symmetries of a {kinds} are not declared")
        self._norm(f"{at}.norm1", block.norm1, [(f"{at}.attn.qkv", block.attn.qkv)])
        self._attention(f"{at}.attn", block.attn)
        self._scale(f"{at}.ls1", block.ls1, f"{at}.attn.proj", block.attn.proj)
        self._norm(f"{at}.norm2", block.norm2, _first_layers(f"{at}.mlp", block.mlp))
        self._mlp(f"{at}.mlp", block.mlp)
        self._scale(f"{at}.ls2", block.ls2, f"{at}.mlp.fc2", block.mlp.fc2)

    def _attention(self, at: str, attention: Attention) -> None:
        heads, channels = attention.num_heads, attention.head_dim
        by_head, qk, vo = f"{at}.heads", f"{at}.qk", f"{at}.vo"
        self.groups[by_head] = UnitGroup(heads)
        normed = not isinstance(attention.q_norm, nn.Identity)  # its channels are not alike
        if normed:
            for name in ("q_norm", "k_norm"):
                for kind, tensor in getattr(attention, name).state_dict().items():
                    self._piece(f"{at}.{name}.{kind}", tensor.shape, (NOTHING,))
        else:
            self.groups[qk] = UnitGroup(channels, "invertible", inside=by_head)
        self.groups[vo] = UnitGroup(channels, "invertible", inside=by_head)
        width = heads * channels
        inner = [Axis(None if normed else qk), Axis(None if normed else qk, reads=True), Axis(vo)]
        for part, axis in enumerate(inner):
            rows = {"start": part * width, "stop": (part + 1) * width}
            shape = (heads, channels, attention.qkv.in_features)
            axes = (Axis(by_head), axis, self.read)
            self._piece(f"{at}.qkv.weight", shape, axes, **rows)
            if attention.qkv.bias is not None:
                self._piece(f"{at}.qkv.bias", shape[:2], axes[:2], **rows)
        shape = (attention.proj.out_features, heads, channels)
        self._piece(f"{at}.proj.weight", shape, (self.written, Axis(by_head), Axis(vo, reads=True)))
        self._bias(f"{at}.proj", attention.proj, self.written)

    def _mlp(self, at: str, mlp: Any) -> None:
        hidden = mlp.fc2.in_features
        self.groups[at] = UnitGroup(hidden)
        for name, layer in _first_layers(at, mlp):
            # a packed gated MLP has gates and values in one layer, SwiGLU in two
            shape = (layer.out_features // hidden, hidden, layer.in_features)
            axes = (NOTHING, Axis(at), self.read)
            self._piece(f"{name}.weight", shape, axes)
            if layer.bias is not None:
                self._piece(f"{name}.bias", shape[:2], axes[:2])
        self._linear(f"{at}.fc2", self.written, Axis(at, reads=True), mlp.fc2)

    def _head(self) -> None:
        model = self.model
        for name in ("norm", "fc_norm"):
            self._norm(name, getattr(model, name), [layers[0] for layers in self.heads if layers])
        for layers in self.heads:
            self._layers(layers)

    def _layers(self, layers: Sequence[tuple[str, nn.Linear]]) -> None:
        """Of a head: each reads what the one before it writes."""
        model, incoming = self.model, self.read
        for number, (name, layer) in enumerate(layers):
            last = number == len(layers) - 1
            out = NOTHING if last else Axis(f"{name}.hidden")
            if not last:
                self.groups[f"{name}.hidden"] = UnitGroup(layer.out_features)
            width = model.embed_dim if number == 0 else layer.in_features
            shape = (layer.out_features, layer.in_features // width, width)
            self._piece(f"{name}.weight", shape, (out, NOTHING, incoming))
            self._bias(name, layer, out)
            incoming = Axis(out.group, reads=True)

    # What tensors are made of

    def _norm(self, name: str, norm: nn.Module, readers: Sequence[tuple[str, Any]]) -> None:
        if isinstance(norm, nn.Identity):
            return
        tensors = norm.state_dict()
        for kind, tensor in tensors.items():
            self._piece(f"{name}.{kind}", tensor.shape, (self.written,), elementwise=True)
        if self.written.group and self.groups[STREAM].maps == "orthogonal":
            bias = f"{name}.bias" if "bias" in tensors else None
            listed = tuple(_tensors_of(*reader) for reader in readers)
            self.norms.append(Norm(STREAM, f"{name}.weight", bias, listed))

    def _scale(self, name: str, scale: Any, writer: str, layer: Any) -> None:
        if not isinstance(scale, nn.Identity):
            self._piece(f"{name}.gamma", scale.gamma.shape, (self.written,), elementwise=True)
            self.scales.append(Scale(f"{name}.gamma", _tensors_of(writer, layer)))

    def _linear(self, name: str, out: Axis, into: Axis, layer: Any) -> None:
        """A linear layer, or a convolution seen as one."""
        weight = layer.weight
        self._piece(f"{name}.weight", (len(weight), weight[0].numel()), (out, into))
        self._bias(name, layer, out)

    def _bias(self, name: str, layer: Any, out: Axis) -> None:
        if layer.bias is not None:
            self._piece(f"{name}.bias", layer.bias.shape, (out,))

    def _piece(
        self, tensor: str, shape: Sequence[int], axes: tuple[Axis, ...], **more: Any
    ) -> None:
        self.pieces.append(Piece(tensor, tuple(shape), axes, **more))


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
