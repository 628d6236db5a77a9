"""ViT-Adapter's side network: injectors, extractors, and what is read of the maps in the end."""

from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from vitarium.architectures.injected._base import SideNetwork, SideSizes, State
from vitarium.architectures.injected._pyramid import (
    NORM_EPS,
    ConvMlp,
    Maps,
    Pyramid,
    Reading,
    resized,
    stem,
)


class ReadableSizes(SideSizes):
    """Settings of a side network whose maps may be read, too."""

    read_maps: bool = False
    """Add the mean of the maps to the features, times a factor of each channel that is 0 at the
    start; else the parts that only the maps need are left out."""


PUBLISHED: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"embed_dim": 384, "num_heads": 6},
    "base": {"embed_dim": 768, "num_heads": 12, "side_heads": 12, "side_ratio": 0.5},
    "large": {
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "side_heads": 16,
        "side_ratio": 0.5,
    },
}
"""Sizes of ViT-Adapter and ViT-CoMer; what they read of the maps is part of them."""


class Injector(nn.Module):
    """patches + gamma * what they read of the maps"""

    def __init__(self, config: SideSizes, width: int) -> None:
        super().__init__()
        sizes = config.side_heads, config.side_points, config.side_ratio
        self.reading = Reading(width, 3, *sizes)
        self.gamma = nn.Parameter(torch.full((width,), config.gamma_init))

    def forward(self, patches: Maps, maps: Maps) -> Tensor:
        """Patches [batch, n, width] -> the same"""
        return patches.tokens + self.gamma * self.reading(patches.tokens, patches.centers, maps)


class Extractor(nn.Module):
    """The maps read the patches, and go through an MLP."""

    def __init__(self, config: SideSizes, width: int, drop_path: float = 0.0) -> None:
        super().__init__()
        sizes = config.side_heads, config.side_points, config.side_ratio
        self.reading = Reading(width, 1, *sizes)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = ConvMlp(width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, maps: Maps, patches: Maps) -> Maps:
        tokens = maps.tokens + self.reading(maps.tokens, maps.centers, patches)
        mixed = self.mlp(self.mlp_norm(tokens), maps.sizes)
        return maps._replace(tokens=tokens + self.drop_path(mixed))


class MapsReadOut(nn.Module):
    """scale * mean over four maps of their means: each is the side network's, plus the ViT's
    patches in its size, batch-normalized; the finest comes of the stem and the next finer one."""

    def __init__(self, stem_width: int, width: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(stem_width, width, 1)
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(4))
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, state: State) -> Tensor:
        """-> [batch, width]"""
        assert state.fine is not None  # of a side network that reads its maps
        maps = state.maps.apart()
        finer = self.up(maps[0])
        fine = state.fine + finer[:, :, : state.fine.shape[2], : state.fine.shape[3]]
        stages, means = len(state.patches), []
        for number, (each, norm) in enumerate(zip([fine, *maps], self.norms, strict=True)):
            of_vit = state.patches[max((number + 1) * stages // 4 - 1, 0)]
            size = each.shape[2], each.shape[3]
            means.append(norm(each + resized(of_vit, size)).mean((2, 3)))
        return self.scale * torch.stack(means).mean(0)


class ReadableSide(SideNetwork):
    """Base of side networks of a pyramid whose maps may be read."""

    read_out: MapsReadOut | None

    def __init__(self, config: ReadableSizes, width: int, channels: int) -> None:
        super().__init__()
        self.reads_maps = config.read_maps
        self.stem = stem(channels, config.stem_width, config.stem_stride)
        self.pyramid = Pyramid(config.stem_width, width)

    def start(self, images: Tensor) -> State:
        """Of images [batch, channels, h, w]."""
        finest = self.stem(images)
        fine = self.read_out.fine(finest) if self.read_out is not None else None
        return State(self.pyramid(finest), fine)

    def read(self, state: State) -> Tensor:
        """The mean of the maps, with the patches that `state` has, scaled: [batch, width]"""
        assert self.read_out is not None  # asked for only where reads_maps is True
        outputs: Tensor = self.read_out(state)
        return outputs


class AdapterSide(ReadableSide):
    """Injectors before each stage and extractors after it; after the last two more extractors."""

    def __init__(self, config: ReadableSizes, width: int, channels: int, drop_path: float) -> None:
        super().__init__(config, width, channels)
        self.adds_patches = self.reads_maps
        stages = range(config.interactions)
        self.injectors = nn.ModuleList(Injector(config, width) for _ in stages)
        # nothing but the features could read what is extracted after the last stage
        needed = stages if self.reads_maps else stages[:-1]
        self.extractors = nn.ModuleList(Extractor(config, width, drop_path) for _ in needed)
        self.last = nn.ModuleList(Extractor(config, width) for _ in range(2 * self.reads_maps))
        self.read_out = MapsReadOut(config.stem_width, width) if self.reads_maps else None

    def inject(self, stage: int, patches: Maps, state: State) -> tuple[Tensor, State]:
        """Patches [batch, n, width] with what they read of the maps."""
        return self.injectors[stage](patches, state.maps), state

    def extract(self, stage: int, patches: Maps, state: State) -> State:
        """The maps with what they read of patches [batch, n, width]."""
        if stage >= len(self.extractors):
            return state
        maps = self.extractors[stage](state.maps, patches)
        for extractor in self.last if stage == len(self.injectors) - 1 else ():
            maps = extractor(maps, patches)
        remembered = (*state.patches, *patches.apart()) if self.reads_maps else ()
        return state._replace(maps=maps, patches=remembered)
