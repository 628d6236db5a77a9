"""Mini-DeiT: a DeiT whose consecutive blocks share their large matrices."""

from functools import partial
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from timm.layers.create_act import get_act_layer
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import nn

from vitarium.architectures.head_mixing import HeadMixing, Start
from vitarium.architectures.multiplexing import (
    MultiplexedAttention,
    MultiplexedBlock,
    Norm,
    SharedWeights,
)
from vitarium.architectures.relative_positions import RelativePositionConfig, RelativePositions
from vitarium.architectures.sharing import Sharing, group_of, group_sizes
from vitarium.architectures.vit import Vit
from vitarium.registry import architecture


class MiniDeit(Vit):
    """A ViT with weight multiplexing; the defaults are Mini-DeiT-Ti.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    class_token: bool = False
    global_pool: Literal["token", "avg"] = "avg"
    fc_norm: bool = False
    """The mean of the tokens is normalised, not each token; `vit` has it so with `avg`."""
    share: Sharing = 2
    """Blocks to a set of weights: a number, "all", or a list of the groups' sizes."""
    separate_norms: bool = True
    """Each block has LayerNorms of its own."""
    mix_before: bool = True
    """A map over the heads of the attention's logits, in each block."""
    mix_after: bool = True
    """A map over the heads of the attention's probabilities, in each block."""
    mixing_init: Start = "trunc_normal"
    """What the maps start from: small random numbers, as the authors have it, or the identity."""
    relative_positions: RelativePositionConfig | None = Field(RelativePositionConfig())
    """Image relative position encoding in each block; null: none."""

    @model_validator(mode="after")
    def _sharing_fits(self) -> Self:
        group_sizes(self.share, self.depth)
        return self


class MiniVisionTransformer(VisionTransformer):
    """Blocks with small parts of their own, and `shared` with the weights of each group.

    A shared matrix is one parameter: `shared.0.attn.qkv.weight`; `blocks.1.norm1.weight` is that
    of a block.
    """

    def __init__(self, config: MiniDeit, num_outputs: int) -> None:
        super().__init__(
            img_size=config.img_size,
            patch_size=config.patch_size,
            in_chans=config.in_chans,
            num_classes=num_outputs,
            global_pool=config.global_pool,
            embed_dim=config.embed_dim,
            depth=0,
            class_token=config.class_token,
            reg_tokens=config.reg_tokens,
            fc_norm=config.fc_norm,
            drop_rate=config.drop_rate,
            pos_drop_rate=config.pos_drop_rate,
            norm_layer=partial(LayerNorm, eps=config.norm_eps),
        )
        self.group_sizes = group_sizes(config.share, config.depth)
        norm = partial(LayerNorm, eps=config.norm_eps)
        self.shared = nn.ModuleList(
            SharedWeights(
                config.embed_dim,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                act_layer=get_act_layer(config.act_layer),
                proj_drop=config.proj_drop_rate,
                norm=None if config.separate_norms else norm,
            )
            for _ in self.group_sizes
        )
        self.shared.apply(init_weights_vit_timm)
        rates = torch.linspace(0, config.drop_path_rate, config.depth, device="cpu").tolist()
        self.blocks = nn.Sequential(
            *(self._block(config, number, rate, norm) for number, rate in enumerate(rates))
        )

    def _block(self, config: MiniDeit, number: int, rate: float, norm: Norm) -> MultiplexedBlock:
        shared = cast(SharedWeights, self.shared[group_of(self.group_sizes, number)])
        heads, start = config.num_heads, config.mixing_init
        attention = MultiplexedAttention(
            shared.attn,
            heads,
            before=HeadMixing(heads, start=start) if config.mix_before else None,
            after=HeadMixing(heads, start=start) if config.mix_after else None,
            positions=self._positions(config),
            attn_drop=config.attn_drop_rate,
            proj_drop=config.proj_drop_rate,
        )
        own = norm if config.separate_norms else None
        return MultiplexedBlock(shared, attention, config.embed_dim, norm=own, drop_path=rate)

    def _positions(self, config: MiniDeit) -> RelativePositions | None:
        if config.relative_positions is None:
            return None
        return RelativePositions(
            config.relative_positions,
            num_heads=config.num_heads,
            head_dim=config.embed_dim // config.num_heads,
            grid=self.patch_embed.grid_size,
            prefix_tokens=self.num_prefix_tokens,
        )


_TINY = {"embed_dim": 192, "num_heads": 3}
_SMALL = {"embed_dim": 384, "num_heads": 6}
_BASE = {"embed_dim": 768, "num_heads": 12}


@architecture(
    "mini_deit",
    config=MiniDeit,
    paper="Zhang et al. 2022, arXiv 2204.07154",
    presets={
        "mini_deit_tiny_patch16_224": _TINY,
        "mini_deit_small_patch16_224": _SMALL,
        "mini_deit_base_patch16_224": _BASE,
        "mini_deit_base_patch16_384": {**_BASE, "img_size": 384},
        "mini_deit_base_single_patch16_224": {**_BASE, "share": "all"},
    },
)
def mini_deit(config: MiniDeit, num_outputs: int) -> nn.Module:
    return MiniVisionTransformer(config, num_outputs)
