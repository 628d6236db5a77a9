"""The symmetries of DualToken-ViT, declared as data."""

from typing import Any

from torch import nn

from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration


class DualTokenDeclaration(VitDeclaration):
    """Units can be exchanged: channels of each stage's maps, which its global tokens share, and of
    the stem; heads, and channels inside of them, of both attentions; hidden units of the MLPs and
    of the gates.

    Groups: "stages.0.stream" and so on, "stem.hidden", and of each block "local.mlp",
    "global_mlp", "mlp", "mlp.gate.of_mean", "mlp.gate.of_token", and "heads", "qk" and "vo" of
    "attn" and of "broadcast".
    """

    def declare(self) -> None:
        """See the base."""
        model = self.model
        hidden = Axis("stem.hidden")
        self.groups["stem.hidden"] = UnitGroup(model.stem[0].out_channels)
        self.written = hidden
        for number, layer in enumerate(model.stem[:-1]):
            if isinstance(layer, nn.Conv2d):  # but for the first they are depthwise
                self.linear(f"stem.{number}", hidden, NOTHING, layer)
            elif isinstance(layer, nn.BatchNorm2d):
                self.norm(f"stem.{number}", layer, ())
        last, at = model.stem[-1], f"stem.{len(model.stem) - 1}"
        self._stream(0, last.out_channels)
        shape = (last.out_channels, last.in_channels, 9)
        self.piece(f"{at}.weight", shape, (self.written, Axis("stem.hidden", reads=True), NOTHING))
        self.bias(at, last, self.written)
        self.norm("stem_norm", model.stem_norm, ())
        self.piece("global_tokens", model.global_tokens.shape, (NOTHING, self.written))
        for number, stage in enumerate(model.stages):
            if stage.merge is not None:
                self._merge(number, stage.merge)
            for index, block in enumerate(stage.blocks):
                self.block(f"stages.{number}.blocks.{index}", block)
        self.norm("norm", model.norm, ())
        for layers in self.heads:
            self.layers(layers)

    def _stream(self, stage: int, width: int) -> None:
        name = None
        # without head the order of the last stage's features is part of the function
        if all(self.heads) or stage < len(self.model.stages) - 1:
            name, self.groups[f"stages.{stage}.stream"] = f"stages.{stage}.stream", UnitGroup(width)
        self.written, self.read = Axis(name), Axis(name, reads=True)

    def _merge(self, stage: int, merge: Any) -> None:
        """Four cells lie side by side, channel by channel."""
        at, width, wider = f"stages.{stage}.merge", merge.proj.in_features, merge.proj.out_features
        for kind in ("weight", "bias"):
            self.piece(f"{at}.norm.{kind}", (width, 4), (self.written, NOTHING), elementwise=True)
        self.norm(f"{at}.global_norm", merge.global_norm, ())
        before = self.read
        self._stream(stage, wider)
        axes = (self.written, before, NOTHING)
        self.piece(f"{at}.reduction.weight", (wider, width, 4), axes)
        self.linear(f"{at}.residual", self.written, before, merge.residual)
        self.linear(f"{at}.proj", self.written, before, merge.proj)

    def block(self, at: str, block: Any) -> None:
        """See the base."""
        for name, part in block.named_modules():
            if isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
                self.norm(f"{at}.{name}", part, ())
            elif isinstance(part, nn.Conv2d):
                self.linear(f"{at}.{name}", self.written, NOTHING, part)
        self.piece(f"{at}.shares", block.shares.shape, (NOTHING,))
        self.attention(f"{at}.attn", block.attn)
        self.mlp(f"{at}.local.mlp", block.local.mlp)
        self.mlp(f"{at}.global_mlp", block.global_mlp)
        self._broadcast(f"{at}.broadcast", block.broadcast)
        hidden = Axis(f"{at}.mlp")
        self.groups[f"{at}.mlp"] = UnitGroup(block.mlp.fc1.out_features)
        self.linear(f"{at}.mlp.fc1", hidden, self.read, block.mlp.fc1)
        self.linear(f"{at}.mlp.fc2", self.written, Axis(hidden.group, reads=True), block.mlp.fc2)
        self._gate(f"{at}.mlp.gate", block.mlp.gate)

    def _broadcast(self, at: str, broadcast: Any) -> None:
        width = broadcast.proj.in_features
        sizes = (broadcast.heads, width // broadcast.heads)
        by_head, qk, vo = f"{at}.heads", f"{at}.qk", f"{at}.vo"
        self.groups[by_head] = UnitGroup(sizes[0])
        for name in (qk, vo):
            self.groups[name] = UnitGroup(sizes[1], "invertible", inside=by_head)
        for layer, channels, rows in (
            ("q", Axis(qk), {}),
            ("kv", Axis(qk, reads=True), {"stop": width}),
            ("kv", Axis(vo), {"start": width}),
        ):
            axes = (Axis(by_head), channels)
            self.piece(f"{at}.{layer}.weight", (*sizes, width), (*axes, self.read), **rows)
            self.piece(f"{at}.{layer}.bias", sizes, axes, **rows)
        written = (self.written, Axis(by_head), Axis(vo, reads=True))
        self.piece(f"{at}.proj.weight", (width, *sizes), written)
        self.bias(f"{at}.proj", broadcast.proj, self.written)

    def _gate(self, at: str, gate: Any) -> None:
        of_mean, of_token = f"{at}.of_mean", f"{at}.of_token"
        inner = gate.of_mean.out_features
        for name, layer in ((of_mean, gate.of_mean), (of_token, gate.of_token)):
            self.groups[name] = UnitGroup(inner)
            self.linear(name, Axis(name), self.read, layer)
        self.linear(f"{at}.channels", self.written, Axis(of_mean, reads=True), gate.channels)
        for number, name in enumerate((of_token, of_mean)):  # side by side
            axes = (NOTHING, NOTHING, Axis(name, reads=True))
            half = (None, (number, number + 1))
            self.piece(f"{at}.tokens.weight", (1, 2, inner), axes, ranges=half)
        self.bias(f"{at}.tokens", gate.tokens, NOTHING)

    def norm(self, name: str, norm: nn.Module, readers: Readers) -> None:
        """Scales, shifts and statistics of channels."""
        for kind, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                self.piece(f"{name}.{kind}", tensor.shape, (self.written,), elementwise=True)
