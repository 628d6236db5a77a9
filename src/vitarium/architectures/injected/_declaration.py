"""The symmetries of ViTs with a side network, declared as data."""

from typing import Any

from torch import nn

from vitarium.architectures.injected._base import InjectedVisionTransformer
from vitarium.architectures.injected._pyramid import ConvMlp, Reading
from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, VitDeclaration

MAPS = "maps"
_PARTS = {
    "Pyramid": "pyramid",
    "Injector": "injector",
    "Extractor": "extractor",
    "MapsReadOut": "maps_read_out",
    "Receptive": "receptive",
    "ToVit": "to_vit",
    "ToMaps": "to_maps",
    "ModalitySide": "modality_side",
}
"""Parts of side networks, by class, and the methods that declare them."""


class InjectedDeclaration(VitDeclaration):
    """Of the plain ViT, and with the stream's channels those of what reads and writes it.

    Beside the groups of a ViT: "maps" (channels of the side network's maps, where patches are not
    added to them; else they are the stream's), and the hidden units of each MLP of the maps. The
    channels inside of the convolutional stem and of the deformable attention stay as they are.
    """

    mixes_stream = False

    def head(self) -> None:
        """Of the ViT, and the side network."""
        super().head()
        assert isinstance(self.model, InjectedVisionTransformer)  # its symmetries alone
        side: Any = self.model.side
        self.maps = self.written
        if not side.adds_patches:
            self.groups[MAPS] = UnitGroup(self.model.embed_dim)
            self.maps = Axis(MAPS)
        for name, module in side.named_modules(prefix="side"):
            if part := _PARTS.get(type(module).__name__):
                getattr(self, part)(name, module)
        declared = {piece.tensor for piece in self.pieces}
        for name, tensor in self.model.state_dict().items():  # what touches no channel
            if tensor.is_floating_point() and name not in declared:
                self.piece(name, (tensor.numel(),), (NOTHING,))

    # Of the parts of side networks

    def pyramid(self, at: str, pyramid: Any) -> None:
        self.piece(f"{at}.level_embed", pyramid.level_embed.shape, (NOTHING, self.maps))
        for number, layer in enumerate(pyramid.outputs):
            self.linear(f"{at}.outputs.{number}", self.maps, NOTHING, layer)

    def injector(self, at: str, injector: Any) -> None:
        self.reading(f"{at}.reading", injector.reading, self.written, self.maps, self.written)
        self.piece(f"{at}.gamma", injector.gamma.shape, (self.written,), elementwise=True)

    def extractor(self, at: str, extractor: Any) -> None:
        self.reading(f"{at}.reading", extractor.reading, self.maps, self.written, self.maps)
        self.units(f"{at}.mlp_norm", extractor.mlp_norm, self.maps)
        self.conv_mlp(f"{at}.mlp", extractor.mlp)

    def maps_read_out(self, at: str, read_out: Any) -> None:
        self.linear(f"{at}.fine", self.maps, NOTHING, read_out.fine)
        width = len(read_out.up.weight)
        axes = (_read(self.maps), self.maps, NOTHING)
        self.piece(f"{at}.up.weight", (width, width, 4), axes)
        self.bias(f"{at}.up", read_out.up, self.maps)
        for number, norm in enumerate(read_out.norms):
            self.units(f"{at}.norms.{number}", norm, self.maps)
        self.piece(f"{at}.scale", (width,), (self.maps,), elementwise=True)

    def receptive(self, at: str, receptive: Any) -> None:
        self.linear(f"{at}.fc1", NOTHING, _read(self.maps), receptive.fc1)
        self.linear(f"{at}.fc2", self.maps, NOTHING, receptive.fc2)

    def to_vit(self, at: str, part: Any) -> None:
        self.reading(f"{at}.reading", part.reading, self.maps, self.maps, self.maps)
        self.units(f"{at}.mlp_norm", part.mlp_norm, self.maps)
        self.conv_mlp(f"{at}.mlp", part.mlp)
        self.piece(f"{at}.gamma", part.gamma.shape, (self.maps,), elementwise=True)

    def to_maps(self, at: str, part: Any) -> None:
        self.reading(f"{at}.reading", part.reading, self.maps, self.maps, self.maps)
        for name in ("query_norm", "map_norm", "mlp_norm", "extra_norm"):
            if (norm := getattr(part, name)) is not None:
                self.units(f"{at}.{name}", norm, self.maps)
        for name in ("mlp", "extra_mlp"):
            if (mlp := getattr(part, name)) is not None:
                self.conv_mlp(f"{at}.{name}", mlp)

    def modality_side(self, at: str, side: Any) -> None:
        for number, reading in enumerate(side.readings):
            name = f"{at}.readings.{number}"
            self.reading(name, reading, self.written, self.maps, self.written)
        self.piece(f"{at}.gamma", side.gamma.shape, (NOTHING, self.written), elementwise=True)
        for number, gate in enumerate(side.gates):
            width = gate.out_features
            axes = (self.written, NOTHING, self.read)
            self.piece(f"{at}.gates.{number}.weight", (width, 2, width), axes)
            self.bias(f"{at}.gates.{number}", gate, self.written)

    # What they are made of

    def reading(self, at: str, reading: Reading, queries: Axis, maps: Axis, out: Axis) -> None:
        attention: Any = reading.attention
        self.units(f"{at}.query_norm", reading.query_norm, queries)
        self.units(f"{at}.map_norm", reading.map_norm, maps)
        for name in ("offsets", "weights"):
            layer = getattr(attention, name)
            self.linear(f"{at}.attention.{name}", NOTHING, _read(queries), layer)
        self.linear(f"{at}.attention.value", NOTHING, _read(maps), attention.value)
        self.linear(f"{at}.attention.output", out, NOTHING, attention.output)

    def conv_mlp(self, at: str, mlp: ConvMlp) -> None:
        hidden = Axis(f"{at}.hidden")
        self.groups[f"{at}.hidden"] = UnitGroup(mlp.fc1.out_features)
        self.linear(f"{at}.fc1", hidden, _read(self.maps), mlp.fc1)
        self.linear(f"{at}.depthwise", hidden, NOTHING, mlp.depthwise)
        self.linear(f"{at}.fc2", self.maps, _read(hidden), mlp.fc2)

    def units(self, at: str, norm: nn.Module, axis: Axis) -> None:
        """Of a normalization of channels."""
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                self.piece(f"{at}.{name}", tensor.shape, (axis,), elementwise=True)


def _read(axis: Axis) -> Axis:
    return Axis(axis.group, reads=True)
