"""DuoFormer: the maps of a CNN, regrouped by location; attention among scales, then locations.

images -> CNN -> maps of 2 to 4 scales -> for each location of the coarsest map a scale token and
all that lies there -> blocks inside each location -> scale tokens -> a ViT over the locations
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import timm
import torch
from pydantic import Field, PositiveInt
from timm.layers.create_act import get_act_layer
from timm.layers.drop import calculate_drop_path_rates
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import NOTHING
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.devices import meta_device
from vitarium.core.errors import did_you_mean


class DuoFormer(Vit):
    """A ViT on scale tokens, which attend to a CNN's maps; the defaults are the paper's ResNet-50.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    backbone: str = "resnet50"
    """CNN by its name in timm; it starts from random weights and is trained with the rest."""
    scales: int = Field(4, ge=2, le=4)
    """Maps that are used, the coarsest of the CNN's; each has twice the side of the next."""
    scale_depth: PositiveInt = 12
    """Number of blocks inside each location, over its tokens of all scales."""
    patch_size: PositiveInt = 32
    """Pixels from one location to the next: those of the CNN's coarsest map."""
    embed_dim: PositiveInt = 768
    """Width of the residual stream: features per token."""
    depth: PositiveInt = 12
    """Number of blocks over the locations."""
    num_heads: PositiveInt = 12
    """Attention heads per block; embed_dim has to be a multiple of it."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if not timm.is_model(self.backbone):
            hint = did_you_mean(self.backbone, timm.list_models("*resnet*"))
            yield f"backbone: unknown timm model '{self.backbone}'{hint}"
            return
        reductions = map_reductions(self.backbone, self.scales)
        if reductions is None:
            yield f"backbone {self.backbone} gives no {self.scales} maps; resnet18 and resnet50 do"
        elif reductions != [self.patch_size >> n for n in reversed(range(self.scales))]:
            yield (
                f"patch_size {self.patch_size}: the maps of {self.backbone} have a place per "
                f"{', '.join(map(str, reductions))} pixels; each has to be half of the next, and "
                "patch_size the last"
            )


def _cnn(backbone: str, scales: int, in_chans: int) -> Any:
    return timm.create_model(
        backbone,
        pretrained=False,
        features_only=True,
        out_indices=tuple(range(-scales, 0)),
        in_chans=in_chans,
    )


@lru_cache(maxsize=64)
def map_reductions(backbone: str, scales: int) -> list[int] | None:
    """Pixels per place of each of the coarsest maps; None where timm gives no such maps."""
    try:
        with meta_device():
            return list(_cnn(backbone, scales, 3).feature_info.reduction())
    except (RuntimeError, AssertionError, IndexError, TypeError, AttributeError, ValueError):
        return None


def regrouped(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """What of a map lies in each cell of a grid, row by row, and cells row by row, too.

    [batch, c, rows * side, columns * side] -> [batch, rows * columns, side * side, c]
    """
    rows, columns = grid
    side = maps.shape[-2] // rows
    cells = maps.unflatten(2, (rows, side)).unflatten(-1, (columns, side))
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


class PyramidTokens(nn.Module):
    """images [batch, in_chans, height, width] -> scale tokens [batch, locations, embed_dim]"""

    def __init__(self, config: DuoFormer, **sizes: Any) -> None:
        super().__init__()
        side, width = config.img_size // config.patch_size, config.embed_dim
        self.img_size, self.patch_size = (config.img_size,) * 2, (config.patch_size,) * 2
        self.grid_size, self.num_patches = (side, side), side**2
        self.backbone = _cnn(config.backbone, config.scales, config.in_chans)
        channels = self.backbone.feature_info.channels()
        self.projections = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.norm = nn.Identity()
        tokens = 1 + sum(4**scale for scale in range(config.scales))
        self.scale_token = nn.Parameter(0.036 * torch.randn(1, 1, 1, width))
        self.scale_positions = nn.Parameter(0.02 * torch.randn(1, 1, tokens, width))
        rates: Any = calculate_drop_path_rates(config.drop_path_rate, config.scale_depth)
        self.blocks = nn.Sequential(*(_block(config, rate) for rate in rates))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale_tokens(self.backbone(images))

    def scale_tokens(self, maps: list[Tensor]) -> Tensor:
        """The maps of all scales, from fine to coarse [batch, channels, side, side] -> [batch,
        locations, embed_dim]; a location sees what lies there alone."""
        pairs = zip(self.projections, maps, strict=True)
        tokens = [regrouped(project(features), self.grid_size) for project, features in pairs]
        size = (*tokens[0].shape[:2], 1, self.scale_token.shape[-1])
        tokens.insert(0, self.scale_token.to(tokens[0].dtype).expand(size))
        inside = (torch.cat(tokens, dim=2) + self.scale_positions).flatten(0, 1)
        scale_tokens: Tensor = self.blocks(inside)[:, 0]
        return scale_tokens.unflatten(0, size[:2])


def _block(config: DuoFormer, drop_path: float) -> nn.Module:
    settings: dict[str, Any] = {
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "proj_drop": config.proj_drop_rate,
        "attn_drop": config.attn_drop_rate,
        "drop_path": drop_path,
        "act_layer": get_act_layer(config.act_layer),
        "norm_layer": partial(LayerNorm, eps=config.norm_eps),
    }
    return Block(config.embed_dim, config.num_heads, **settings)


class DuoFormerVisionTransformer(VisionTransformer):
    """timm's on scale tokens; there is no class of timm's for it."""


class DuoFormerDeclaration(TokenizerDeclaration):
    def tokenizer(self, at: str, tokenizer: Any) -> None:
        """Both halves have one residual stream, which nothing stands between."""
        for number, projection in enumerate(tokenizer.projections):
            self.linear(f"{at}.projections.{number}", self.written, NOTHING, projection)
        self.added(f"{at}.scale_token", tokenizer.scale_token)
        self.added(f"{at}.scale_positions", tokenizer.scale_positions)
        for number, block in enumerate(tokenizer.blocks):
            self.block(f"{at}.blocks.{number}", block)


@architecture(
    "duoformer",
    paper="Tang et al. 2025, arXiv 2506.12982",
    presets={"duoformer_resnet50": {}, "duoformer_resnet18": {"backbone": "resnet18"}},
    symmetries=DuoFormerDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={
        "backbone": "test_resnet",
        "img_size": 64,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "scales": 2,
        "scale_depth": 1,
    },
)
def duoformer(config: DuoFormer, num_outputs: int) -> nn.Module:
    """A ViT on tokens that gather what maps of a CNN's scales have at a location."""
    tokenizer = partial(PyramidTokens, config)
    return DuoFormerVisionTransformer(
        **config.arguments(), embed_layer=tokenizer, num_classes=num_outputs
    )
