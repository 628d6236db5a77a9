"""ViT-CoMer: convolutional maps and a plain ViT interact in both directions.

Without the detection head, and with class token and registers in the blocks (see `vit_adapter`).
"""

from collections.abc import Iterator

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.injected._adapter_side import (
    PUBLISHED,
    MapsReadOut,
    ReadableSide,
    ReadableSizes,
)
from vitarium.architectures.injected._base import (
    TINY,
    InjectedVisionTransformer,
    InjectedVit,
    SideSizes,
    State,
)
from vitarium.architectures.injected._declaration import InjectedDeclaration
from vitarium.architectures.injected._pyramid import (
    NORM_EPS,
    ConvMlp,
    Maps,
    Reading,
    resized,
)
from vitarium.architectures.vit.vit import TRAINING_FACTORS

_EXTRA = 4
"""Interactions of the maps alone after the last stage."""


class ViTCoMer(InjectedVit, ReadableSizes):
    """ViT-CoMer around a plain ViT; by default as small as ViT-Ti.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.embed_dim % 4:
            yield f"embed_dim {self.embed_dim} is not divisible by 4: kernels share half of it"


class Receptive(nn.Module):
    """Multi-receptive-field pyramid: in half the width, half of the channels see 3x3 cells, half
    5x5, with kernels of each map's own; not residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden, half = width // 2, width // 4
        self.fc1 = nn.Linear(width, hidden)
        self.small, self.large = (
            nn.ModuleList(nn.Conv2d(half, half, k, padding=k // 2, groups=half) for _ in range(3))
            for k in (3, 5)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(3))
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, maps: Maps) -> Maps:
        hidden, mixed = maps._replace(tokens=self.fc1(maps.tokens)).apart(), []
        for each, small, large, norm in zip(
            hidden, self.small, self.large, self.norms, strict=True
        ):
            first, second = each.chunk(2, dim=1)
            mixed.append(F.gelu(norm(torch.cat([small(first), large(second)], dim=1))))
        return maps._replace(tokens=self.fc2(Maps.of(mixed).tokens))


class ToVit(nn.Module):
    """patches + gamma * the sum of the maps in their size, after these read each other"""

    def __init__(self, config: SideSizes, width: int, drop_path: float) -> None:
        super().__init__()
        sizes = config.side_heads, config.side_points, config.side_ratio
        self.reading = Reading(width, 3, *sizes)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = ConvMlp(width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.gamma = nn.Parameter(torch.full((width,), config.gamma_init))

    def forward(self, patches: Maps, maps: Maps) -> Tensor:
        """Patches [batch, n, width] -> the same"""
        read = self.reading(maps.tokens, maps.centers, maps)
        read = read + self.drop_path(self.mlp(self.mlp_norm(read), maps.sizes))
        (grid,) = patches.sizes
        in_size = [resized(each, grid) for each in maps._replace(tokens=read).apart()]
        injected = (in_size[0] + in_size[1] + in_size[2]).flatten(2).transpose(1, 2)
        return patches.tokens + self.gamma * injected


class ToMaps(nn.Module):
    """The maps, with the patches added to the middle one, read each other and go through an MLP;
    the residual is of the normalized maps. `extra`: through another MLP before."""

    def __init__(
        self, config: SideSizes, width: int, drop_path: float, *, extra: bool = False
    ) -> None:
        super().__init__()
        sizes = config.side_heads, config.side_points, config.side_ratio
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.map_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.reading = Reading(width, 3, *sizes)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = ConvMlp(width)
        self.extra_norm = nn.LayerNorm(width, eps=NORM_EPS) if extra else None
        self.extra_mlp = ConvMlp(width) if extra else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, maps: Maps, patches: Maps) -> Maps:
        maps = with_patches(maps, patches)
        if self.extra_norm is not None and self.extra_mlp is not None:
            mixed = self.extra_mlp(self.extra_norm(maps.tokens), maps.sizes)
            maps = maps._replace(tokens=maps.tokens + self.drop_path(mixed))
        tokens = self.query_norm(maps.tokens)
        read = maps._replace(tokens=self.map_norm(maps.tokens))
        tokens = tokens + self.reading(tokens, maps.centers, read)
        mixed = self.mlp(self.mlp_norm(tokens), maps.sizes)
        return maps._replace(tokens=tokens + self.drop_path(mixed))


def with_patches(maps: Maps, patches: Maps) -> Maps:
    """The patches, [batch, n, width], are added to the middle map."""
    first, middle, last = maps.apart()
    (of_vit,) = patches.apart()
    return Maps.of([first, middle + resized(of_vit, maps.sizes[1]), last])


class CoMerSide(ReadableSide):
    """Maps to patches before each stage, and patches to maps after it."""

    adds_patches = True

    def __init__(self, config: ReadableSizes, width: int, channels: int, drop_path: float) -> None:
        super().__init__(config, width, channels)
        stages, settings = range(config.interactions), (config, width, drop_path)
        self.receptive = nn.ModuleList(Receptive(width) for _ in stages)
        self.to_vit = nn.ModuleList(ToVit(*settings) for _ in stages)
        needed = stages if self.reads_maps else stages[:-1]
        self.to_maps = nn.ModuleList(ToMaps(*settings) for _ in needed)
        extra = range(_EXTRA * self.reads_maps)
        self.last = nn.ModuleList(ToMaps(*settings, extra=True) for _ in extra)
        self.read_out = MapsReadOut(config.stem_width, width) if self.reads_maps else None

    def inject(self, stage: int, patches: Maps, state: State) -> tuple[Tensor, State]:
        """Patches [batch, n, width] with the maps, to which they were added."""
        maps = with_patches(self.receptive[stage](state.maps), patches)
        return self.to_vit[stage](patches, maps), state._replace(maps=maps)

    def extract(self, stage: int, patches: Maps, state: State) -> State:
        """The maps with the patches [batch, n, width]."""
        if stage >= len(self.to_maps):
            return state
        maps = self.to_maps[stage](state.maps, patches)
        for interaction in self.last if stage == len(self.to_vit) - 1 else ():
            maps = interaction(maps, patches)
        return state._replace(maps=maps, patches=tuple(patches.apart()))


@architecture(
    "vit_comer",
    paper="Xia et al. 2024, arXiv 2403.07392",
    presets={
        f"vit_comer_{size}": {"read_maps": True, **settings} for size, settings in PUBLISHED.items()
    },
    symmetries=InjectedDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "gamma_init"),
    tiny=TINY | {"read_maps": True},
)
def vit_comer(config: ViTCoMer, num_outputs: int) -> nn.Module:
    """A plain ViT and multi-scale convolutional maps that interact in both directions."""
    return InjectedVisionTransformer(config, CoMerSide, num_outputs)
