"""The symmetries of SparseFormer, declared as data."""

from typing import Any

from torch import nn

from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, STREAM, VitDeclaration
from vitarium.architectures.tokens._bootstrapped_focusing import BootstrappedBlock, ReadingBlock

STEM = "stem"


class FocusingDeclaration(VitDeclaration):
    """Groups beside those of a plain ViT: "focus", the stream of the tokens while they focus;
    "stem", channels of the map; and of each block that focuses "blocks.0.points", which a token
    reads, "blocks.0.mixing.channels" and "blocks.0.mixing.rows", of what it read as it is mixed,
    and "blocks.0.mixing.squeeze", between two linear layers, which any invertible map may mix; of
    bootstrapped models "blocks.0.move", hidden units of what moves boxes.

    Latent tokens stay where they are, as the tokens of all models do: their boxes begin alike.
    """

    mixes_stream = False

    def declare(self) -> None:
        """See the base."""
        model = self.model
        self.groups[STEM] = UnitGroup(model.stem.out_channels)
        self.linear("stem", Axis(STEM), NOTHING, model.stem)
        self.groups["focus"] = UnitGroup(model.latents.shape[1])
        self.written, self.read = Axis("focus"), Axis("focus", reads=True)
        self.piece("latents", model.latents.shape, (NOTHING, self.written))
        self.piece("boxes", model.boxes.shape, (NOTHING, NOTHING))
        self.focusing("blocks.0", model.blocks[0])
        focused, stream = self.read, None
        if all(self.heads):  # without head the order of the features is part of the function
            stream, self.groups[STREAM] = STREAM, UnitGroup(model.embed_dim)
        self.written, self.read = Axis(stream), Axis(stream, reads=True)
        self.linear("transition.0", self.written, focused, model.transition[0])
        self.norm("transition.1", model.transition[1], ())
        self.focusing("blocks.1", model.blocks[1])
        if model.cls_token is not None:
            self.piece("cls_token", model.cls_token.shape, (NOTHING, NOTHING, self.written))
        for number, block in enumerate(model.blocks[2:], start=2):
            self.block(f"blocks.{number}", block)
        self.norm("norm", model.norm, ())
        for layers in self.heads:
            self.layers(layers)

    def focusing(self, at: str, block: Any) -> None:
        """Of a block that focuses."""
        if isinstance(block, ReadingBlock):
            self.encoding(f"{at}.encoding", block.encoding)
        if not isinstance(block, ReadingBlock) or isinstance(block, BootstrappedBlock):
            self.attending(at, block)
        self.norm(f"{at}.offset_norm", block.offset_norm, ())
        points, count = Axis(f"{at}.points"), len(block.grid)
        self.groups[f"{at}.points"] = UnitGroup(count)
        self.piece(f"{at}.grid", (count, 2), (points, NOTHING))
        shape = (count, 2, block.offsets.in_features)
        self.piece(f"{at}.offsets.weight", shape, (points, NOTHING, self.read))
        self.mixing(f"{at}.mixing", block.mixing, f"{at}.points")

    def attending(self, at: str, block: Any) -> None:
        """Of attention, MLP, and what moves boxes."""
        for name in ("norm1", "norm2", "box_norm"):
            self.norm(f"{at}.{name}", getattr(block, name), ())
        self.attention(f"{at}.attn", block.attn)
        self.mlp(f"{at}.mlp", block.mlp)
        if not isinstance(block, BootstrappedBlock):
            self.linear(f"{at}.move", NOTHING, self.read, block.move)
            return
        self.piece(f"{at}.repeat_embed", block.repeat_embed.shape, (NOTHING, self.written))
        hidden = f"{at}.move"
        into, out = (linear for linear in block.move if isinstance(linear, nn.Linear))
        self.groups[hidden] = UnitGroup(len(into.weight))
        self.linear(f"{at}.move.0", Axis(hidden), self.read, into)
        self.linear(f"{at}.move.2", NOTHING, Axis(hidden, reads=True), out)

    def encoding(self, at: str, layers: Any) -> None:
        """Of boxes, whose encoding is not learned."""
        for name, tensor in layers[0].state_dict(prefix=f"{at}.0.").items():
            self.piece(name, tensor.shape, (NOTHING,))
        self.linear(f"{at}.1", self.written, NOTHING, layers[1])

    def mixing(self, at: str, mixing: Any, points: str) -> None:
        """Of the layers that generate two matrices, one after the other, and of their product."""
        channels, rows, squeezed = (f"{at}.{name}" for name in ("channels", "rows", "squeeze"))
        size = mixing.squeeze.out_features
        self.groups[channels] = UnitGroup(mixing.channels)
        self.groups[rows] = UnitGroup(mixing.rows)
        self.groups[squeezed] = UnitGroup(size, "invertible")
        self.norm(f"{at}.norm", mixing.norm, ())
        self.linear(squeezed, Axis(squeezed), self.read, mixing.squeeze)
        end = mixing.channels**2
        of_channels = (Axis(STEM, reads=True), Axis(channels))
        of_points = (Axis(rows), Axis(points, reads=True))
        for sizes, axes, ends in (
            ((mixing.channels,) * 2, of_channels, {"stop": end}),
            ((mixing.rows, mixing.points), of_points, {"start": end}),
        ):
            reads = Axis(squeezed, reads=True)
            self.piece(f"{at}.generate.weight", (*sizes, size), (*axes, reads), **ends)
            self.piece(f"{at}.generate.bias", sizes, axes, **ends)
        if mixing.row_bias is not None:
            self.piece(f"{at}.channel_bias", (mixing.channels,), (Axis(channels),))
            self.piece(f"{at}.row_bias", (mixing.rows,), (Axis(rows),))
        output = mixing.output
        read = (Axis(rows, reads=True), Axis(channels, reads=True))
        shape = (output.out_features, mixing.rows, mixing.channels)
        self.piece(f"{at}.output.weight", shape, (self.written, *read))
        self.bias(f"{at}.output", output, self.written)
