"""Jumbo: one wide token beside the patches, with a wide MLP that all blocks share."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from timm.layers.create_act import get_act_layer
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer, init_weights_vit_timm
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class Jumbo(Vit):
    """A ViT with a wide token in place of the class token: as wide as several patches together.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    class_token: Literal[False] = False
    """There is none: the jumbo token stands in its place."""
    no_embed_class: Literal[True] = True
    """Position embeddings are for patches alone."""
    global_pool: Literal["avg"] = "avg"
    """Features that the head sees: the jumbo token, and the mean of the patches beside it."""
    jumbo_ratio: PositiveInt = 6
    """Width of the jumbo token as a multiple of embed_dim: it attends as so many tokens."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with: the wide token is so many registers."""
        return super().arguments() | {"reg_tokens": self.jumbo_ratio, "fc_norm": False}

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.reg_tokens:
            yield "reg_tokens stand where the jumbo token does, whose width jumbo_ratio is; use 0"


class JumboBlock(Block):
    """A block whose MLP is for patches alone, and whose wide token has the shared one.

    tokens [batch, jumbo_ratio + patches, dim] -> the same. Attention is over all of them; then the
    first ones stand side by side, [batch, jumbo_ratio * dim], for `norm3` and the shared MLP.
    """

    norm3: nn.Module
    drop_path3: nn.Module

    def share(self, mlp: Mlp, config: Jumbo) -> None:
        """Take the wide token's parts: a norm of its own, and the MLP of all blocks."""
        self.jumbo_ratio = config.jumbo_ratio
        self.norm3 = LayerNorm(config.jumbo_ratio * config.embed_dim, eps=config.norm_eps)
        rate = getattr(self.drop_path1, "drop_prob", 0.0)
        self.drop_path3 = DropPath(rate) if rate else nn.Identity()
        self._jumbo_mlp = (mlp,)  # in a tuple, so that it does not become a submodule

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        attended = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        x = x + self.drop_path1(attended)
        wide, patches = x[:, : self.jumbo_ratio].flatten(1), x[:, self.jumbo_ratio :]
        wide = wide + self.drop_path3(self._jumbo_mlp[0](self.norm3(wide)))
        patches = patches + self.drop_path2(self.mlp(self.norm2(patches)))
        return torch.cat([wide.unflatten(1, (self.jumbo_ratio, -1)), patches], dim=1)


class JumboTransformer(VisionTransformer):
    """Its blocks share `jumbo_mlp`; its head sees [batch, (jumbo_ratio + 1) * embed_dim].

    As the authors have it, outputs start at -log(num_classes), whatever the image is.
    """

    def __init__(self, config: Jumbo, num_outputs: int) -> None:
        super().__init__(**config.arguments(), block_fn=JumboBlock, num_classes=0)
        wide, act_layer = config.jumbo_ratio * config.embed_dim, get_act_layer(config.act_layer)
        hidden = int(wide * config.mlp_ratio)
        self.jumbo_mlp = Mlp(wide, hidden, act_layer=act_layer, drop=config.proj_drop_rate)
        self.jumbo_mlp.apply(init_weights_vit_timm)
        for block in self.blocks:
            assert isinstance(block, JumboBlock)
            block.share(self.jumbo_mlp, config)
        self.num_classes = num_outputs
        self.num_features = self.head_hidden_size = wide + config.embed_dim
        if num_outputs:
            self.head = nn.Linear(self.num_features, num_outputs)
            nn.init.zeros_(self.head.weight)
            nn.init.constant_(self.head.bias, -math.log(num_outputs))

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens [batch, jumbo_ratio + patches, embed_dim] -> [batch, num_features]"""
        wide, patches = x.split([self.num_reg_tokens, x.shape[1] - self.num_reg_tokens], dim=1)
        return torch.cat([wide.flatten(1), patches.mean(1)], dim=1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As timm's, for rates that differ by depth; the shared MLP goes with the first block."""
        patterns: dict[str, Any] = super().group_matcher(coarse)
        return patterns | {"blocks": [*patterns["blocks"], (r"^jumbo_mlp\.", (0,))]}


class JumboDeclaration(VitDeclaration):
    """The symmetries of `jumbo`: the wide token's parts are exchanged as the stream is.

    They cannot be mixed: the shared MLP reads the stream after the norms of all blocks.
    """

    mixes_stream = False

    def embedding(self) -> None:
        """Of the patches, and the shared MLP of the wide token."""
        super().embedding()
        mlp: Any = self.model.jumbo_mlp
        hidden = mlp.fc2.in_features
        self.groups["jumbo_mlp"] = UnitGroup(hidden)
        units, parts = Axis("jumbo_mlp"), (self.model.num_reg_tokens, self.model.embed_dim)
        self.piece("jumbo_mlp.fc1.weight", (hidden, *parts), (units, NOTHING, self.read))
        self.bias("jumbo_mlp.fc1", mlp.fc1, units)
        read = Axis("jumbo_mlp", reads=True)
        self.piece("jumbo_mlp.fc2.weight", (*parts, hidden), (NOTHING, self.written, read))
        self.piece("jumbo_mlp.fc2.bias", parts, (NOTHING, self.written))

    def block(self, at: str, block: Any) -> None:
        """Raises IncompatibleWeights for another kind than `JumboBlock`."""
        if not isinstance(block, JumboBlock):
            super().block(at, block)
            return
        self.branches(at, block)
        parts = (block.jumbo_ratio, self.model.embed_dim)
        for name in block.norm3.state_dict():
            self.piece(f"{at}.norm3.{name}", parts, (NOTHING, self.written), elementwise=True)


def _size(embed_dim: int, num_heads: int, jumbo_ratio: int = 6) -> dict[str, Any]:
    sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "jumbo_ratio": jumbo_ratio}
    return {**sizes, "norm_eps": 1e-5}


@architecture(
    "jumbo",
    paper="Fuller et al. 2025, arXiv 2502.15021",
    presets={
        "jumbo_pico_patch16_224": _size(96, 3),
        "jumbo_nano_patch16_224": _size(128, 4),
        "jumbo_tiny_patch16_224": _size(192, 3),
        "jumbo_small_patch16_224": _size(384, 6),
        "jumbo_base_patch16_224": _size(768, 12, 3),
    },
    symmetries=JumboDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    | {"jumbo_ratio": 2},
)
def jumbo(config: Jumbo, num_outputs: int) -> nn.Module:
    return JumboTransformer(config, num_outputs)
