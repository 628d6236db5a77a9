"""Mini-DeiT: a DeiT whose consecutive blocks share their large matrices."""

from functools import partial
from typing import Any, Literal, Self, cast

from pydantic import Field, PositiveFloat, model_validator
from timm.layers.create_act import get_act_layer
from timm.layers.drop import calculate_drop_path_rates
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.multiplexed import _blocks as blocks
from vitarium.architectures.multiplexed._relative_positions import (
    RelativePositionConfig,
    RelativePositions,
)
from vitarium.architectures.multiplexed._sharing import Multiplexing, Sharing, group_of, group_sizes
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class MiniDeit(Multiplexing, Vit):
    """MiniViT's DeiT: a ViT whose blocks share weights; the defaults are Mini-DeiT-Ti."""

    class_token: bool = False
    """Put a learned class token before the patches."""
    global_pool: Literal["token", "avg"] = "avg"
    """Features that the head sees: the class token (token), or the mean of the patches (avg)."""
    fc_norm: bool = False
    """Normalize the mean of the tokens, as `vit` does with avg; false: normalize each token, then
    take the mean, as MiniViT does."""
    init_values: PositiveFloat | None = None
    """Initial value of the layer scales, which each block has its own of; null: no layer scales."""
    share: Sharing = 2
    """Blocks that share one set of weights: a number, "all", or a list of group sizes."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block (Wu et al. 2021); null: none."""

    @model_validator(mode="after")
    def _sharing_fits(self) -> Self:
        group_sizes(self.share, self.depth)
        return self


class MiniVisionTransformer(VisionTransformer):
    """Blocks with small parts of their own, and `shared` with the weights of each group.

    A shared matrix is one parameter: `shared.0.attn.qkv.weight`; `blocks.1.norm1.weight` is that
    of a block. All else is as in timm, but there are no attention masks.
    """

    def __init__(self, config: MiniDeit, num_outputs: int) -> None:
        norm = partial(LayerNorm, eps=config.norm_eps)
        without_blocks = {"depth": 0, "fc_norm": config.fc_norm, "norm_layer": norm}
        super().__init__(**config.arguments() | without_blocks, num_classes=num_outputs)
        self.config, self._norm = config, norm
        self.group_sizes = group_sizes(config.share, config.depth)
        dim, act_layer = config.embed_dim, get_act_layer(config.act_layer)
        self.shared = nn.ModuleList(
            blocks.SharedWeights(dim, config, norm, act_layer=act_layer) for _ in self.group_sizes
        )
        self.shared.apply(init_weights_vit_timm)
        rates = cast(list[float], calculate_drop_path_rates(config.drop_path_rate, config.depth))
        self.blocks = nn.Sequential(*(self._block(n, rate) for n, rate in enumerate(rates)))
        info = {"num_chs": self.embed_dim, "reduction": config.patch_size}
        self.feature_info = [{"module": f"blocks.{i}"} | info for i in range(config.depth)]

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Take images of another size; `pos_embed` alone is resampled, other weights stay."""
        super().set_input_size(img_size, patch_size)
        for block in cast(list[blocks.MultiplexedBlock], self.blocks):
            if (before := block.attn.positions) is not None:
                # the same weights, for the grid that there is now
                resized = cast(RelativePositions, self._positions())
                resized.to(next(before.parameters()).device).train(before.training)
                resized.load_state_dict(before.state_dict(), assign=True)
                block.attn.positions = resized
            if isinstance(block.local, blocks.LocalConvolution):
                block.local.grid = self.patch_embed.grid_size

    def prune_intermediate_layers(self, indices: Any = 1, *args: Any, **kwargs: Any) -> list[int]:
        """As timm's; the weights that no remaining block uses go, too."""
        indices_left: list[int] = super().prune_intermediate_layers(indices, *args, **kwargs)
        last = group_of(self.group_sizes, len(self.blocks) - 1)
        self.shared = self.shared[: last + 1]
        return indices_left

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As timm's, for rates that differ by depth; shared weights go with their first block."""
        patterns: dict[str, Any] = super().group_matcher(coarse)
        firsts = [sum(self.group_sizes[:group]) for group in range(len(self.group_sizes))]
        shared = [(rf"^shared\.{group}\.", (first,)) for group, first in enumerate(firsts)]
        return patterns | {"blocks": [*patterns["blocks"], *shared]}

    def _block(self, number: int, drop_path: float) -> blocks.MultiplexedBlock:
        config = self.config
        shared = cast(blocks.SharedWeights, self.shared[group_of(self.group_sizes, number)])
        attention = blocks.MultiplexedAttention(
            shared.attn,
            config.num_heads,
            positions=self._positions(),
            **blocks.attention_parts(config, config.num_heads),
        )
        return blocks.MultiplexedBlock(
            shared,
            attention,
            config.embed_dim,
            config,
            self._norm,
            init_values=config.init_values,
            drop_path=drop_path,
            grid=self.patch_embed.grid_size,
            prefix_tokens=self.num_prefix_tokens,
        )

    def _positions(self) -> RelativePositions | None:
        if self.config.relative_positions is None:
            return None
        return RelativePositions(
            self.config.relative_positions,
            num_heads=self.config.num_heads,
            head_dim=self.embed_dim // self.config.num_heads,
            grid=self.patch_embed.grid_size,
            prefix_tokens=self.num_prefix_tokens,
        )


_TINY = {"embed_dim": 192, "num_heads": 3}
_SMALL = {"embed_dim": 384, "num_heads": 6}
_BASE = {"embed_dim": 768, "num_heads": 12}


@architecture(
    "mini_deit",
    paper="Zhang et al. 2022, arXiv 2204.07154",
    symmetries="each block mixes the heads by a map of its own, and blocks share their heads",
    presets={
        "mini_deit_tiny_patch16_224": _TINY,
        "mini_deit_small_patch16_224": _SMALL,
        "mini_deit_base_patch16_224": _BASE,
        "mini_deit_base_patch16_384": {**_BASE, "img_size": 384},
        "mini_deit_base_single_patch16_224": {**_BASE, "share": "all"},
    },
    training_factors=(*TRAINING_FACTORS, "init_values", "mixing_init"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def mini_deit(config: MiniDeit, num_outputs: int) -> nn.Module:
    return MiniVisionTransformer(config, num_outputs)
