"""S2, scaling on scales: one ViT sees an image at several scales, the larger ones in tiles.

Its weights are those of `vit`, by name and shape, but for the head: with `start` and the adaptation
`head` a grown ViT is used frozen, as in the paper; with others it learns, too.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class MultiScaleVit(Vit):
    """A ViT whose features at several scales of an image lie side by side; by default ViT-Ti/16.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 2.0)
    """Sides of the resized image, as multiples of img_size; features have the grid of the first."""
    tile_size: PositiveInt | None = None
    """Side of the tiles that the ViT sees, in pixels, which its positions are for; every scale's
    side has to be a multiple of it. None: img_size."""

    @property
    def tile(self) -> int:
        """Side of the tiles, in pixels."""
        return self.tile_size or self.img_size

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the resized images, in pixels."""
        return tuple(round(self.img_size * scale) for scale in self.scales)

    def arguments(self) -> dict[str, Any]:
        """See the base; of the ViT that sees the tiles."""
        return super().arguments() | {"img_size": self.tile}

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.tile % self.patch_size:
            yield f"tile_size {self.tile} is not divisible by patch_size {self.patch_size}"
        for scale, side in zip(self.scales, self.sides, strict=True):
            if not side or side % self.tile:
                yield f"scale {scale:g} gives {side} pixels, which tiles of {self.tile} do not fill"
        if len(set(self.sides)) < len(self.sides):
            yield "scales give the same size twice"


def tiles(images: Tensor, side: int) -> Tensor:
    """Images cut in squares: [batch, c, rows * side, columns * side] -> [rows * columns * batch, c,
    side, side], by row, column and image."""
    cut = images.unflatten(2, (-1, side)).unflatten(-1, (-1, side))
    return cut.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def stitched(maps: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `tiles`: [rows * columns * batch, c, h, w] -> [batch, c, rows * h, columns *
    w]"""
    cut = maps.unflatten(0, (rows, columns, -1))
    return cut.permute(2, 3, 0, 4, 1, 5).flatten(2, 3).flatten(3, 4)


def resized(images: Tensor, side: int) -> Tensor:
    """Images [batch, c, h, w] -> [batch, c, side, side], bicubic and without antialiasing."""
    if images.shape[-2:] == (side, side):
        return images
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    scaled = F.interpolate(wide, (side, side), mode="bicubic", align_corners=False)
    return scaled.to(images.dtype)


class MultiScaleVisionTransformer(VisionTransformer):
    """Its tokens are those of all scales side by side: [batch, prefix + n, scales * embed_dim].

    Patches are stitched from tiles and averaged to the grid of the first scale; of class token and
    registers a scale has the mean over its tiles. Blocks run once for each scale.
    """

    def __init__(self, config: MultiScaleVit, num_outputs: int) -> None:
        super().__init__(**config.arguments(), num_classes=0)
        self.tile, self.sides = config.tile, config.sides
        self.num_classes = num_outputs
        self.num_features = self.head_hidden_size = len(self.sides) * self.embed_dim
        if num_outputs:
            self.head = nn.Linear(self.num_features, num_outputs)

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """images [batch, c, h, w] -> tokens [batch, prefix + n, scales * embed_dim]"""
        prefixes, maps = [], []
        for side in self.sides:
            rows = side // self.tile
            cut = tiles(resized(x, side), self.tile)
            tokens = super().forward_features(cut, *args, **kwargs)
            prefix, patches = tokens.tensor_split((self.num_prefix_tokens,), dim=1)
            prefixes.append(prefix.unflatten(0, (rows**2, -1)).mean(0))
            grid = patches.transpose(1, 2).unflatten(2, self.patch_embed.grid_size)
            maps.append(stitched(grid, rows, rows))
        size = (maps[0].shape[-2], maps[0].shape[-1])
        averaged = torch.cat([F.adaptive_avg_pool2d(features, size) for features in maps], dim=1)
        return torch.cat([torch.cat(prefixes, dim=-1), averaged.flatten(2).transpose(1, 2)], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens [batch, prefix + n, scales * embed_dim] -> outputs [batch, num_outputs]"""
        by_scale = [self.fc_norm(self.pool(part)) for part in x.chunk(len(self.sides), dim=-1)]
        features = self.head_drop(torch.cat(by_scale, dim=-1))
        return features if pre_logits else self.head(features)


@architecture(
    "multi_scale",
    paper="Shi et al. 2024, arXiv 2403.13043",
    symmetries=vit_symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def multi_scale(config: MultiScaleVit, num_outputs: int) -> nn.Module:
    """A ViT that sees an image at several scales, larger ones in tiles; features side by side."""
    return MultiScaleVisionTransformer(config, num_outputs)
