"""DualToken-ViT: local tokens from convolutions, and global tokens that know their positions.

The authors' code is not public. From the paper come local convolution, the step-wise reduction, its
weighted sum with position-aware global tokens, their broadcast and the MLP of these; stem, merging,
gates and sizes are LightViT's. Chosen here: weights of the sum are a softmax of two scalars of each
block, a step of the reduction is a depthwise 3x3 convolution with batch normalization and GELU and
a mean of 2x2 cells, global tokens get a pre-norm MLP, and the local block has no layer scale.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from timm.layers.attention import Attention
from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from vitarium.architectures.base import ArchitectureConfig, architecture, without_hidden_units
from vitarium.architectures.tokens._dual_token_declaration import DualTokenDeclaration
from vitarium.architectures.tokens._dual_token_parts import (
    Broadcast,
    GatedMlp,
    Local,
    Merge,
    reduction_step,
    stem,
)

_Stages = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class DualToken(ArchitectureConfig):
    """DualToken-ViT; by default with the sizes of LightViT-T.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    img_size: PositiveInt = 224
    """Height and width of the input images, in pixels."""
    in_chans: PositiveInt = 3
    """Channels of the input images: 3 for RGB, 1 for gray."""
    widths: _Stages = (64, 128, 256)
    """Width of each stage, each an even number; from stage to stage height and width are halved."""
    depths: _Stages = (2, 6, 6)
    """Blocks of each stage."""
    num_heads: _Stages = (2, 4, 8)
    """Attention heads of each stage."""
    mlp_ratios: _Stages = (8, 4, 4)
    """Hidden width of each stage's MLPs, as a multiple of its width."""
    local_ratio: PositiveFloat = 4.0
    """Hidden width of the local blocks, as a multiple of the width."""
    global_ratio: PositiveFloat = 2.0
    """Hidden width of the global tokens' MLPs, as a multiple of the width."""
    global_side: PositiveInt = 7
    """Global tokens are a square of so many rows; each stage's map has as many, times a power of
    2."""
    stem_stride: Literal[1, 2, 4, 8] = 8
    """Pixels between the first stage's tokens; small images need a small one."""
    drop_path_rate: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block, in [0, 1); it rises linearly from 0."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        return (self.in_chans, self.img_size, self.img_size)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if faults := list(self.mismatches()):
            raise ValueError("; ".join(faults))
        return self

    def mismatches(self) -> Iterator[str]:
        """All that does not go together."""
        stages = len(self.widths)
        for name in ("depths", "num_heads", "mlp_ratios"):
            if len(getattr(self, name)) != stages:
                yield f"{name} are of {len(getattr(self, name))} stages, and widths of {stages}"
        for width, heads in zip(self.widths, self.num_heads, strict=False):
            if width % heads or width % 2:
                yield f"width {width} has to be even, and divisible by its num_heads {heads}"
        ratios = {"local_ratio": self.local_ratio, "global_ratio": self.global_ratio}
        yield from without_hidden_units(min(self.widths), **ratios)
        coarsest = self.stem_stride * 2 ** (stages - 1)
        steps, rest = divmod(self.img_size, coarsest * self.global_side)
        if rest or steps & (steps - 1):
            yield (
                f"img_size {self.img_size} is not {coarsest * self.global_side} (stem_stride "
                f"{self.stem_stride} x {2 ** (stages - 1)} of the stages x global_side "
                f"{self.global_side}) times a power of 2"
            )


class DualTokenBlock(nn.Module):
    """map [batch, width, h, w] and global tokens [batch, g, width] -> both"""

    def __init__(self, config: DualToken, stage: int, steps: int, drop_path: float) -> None:
        super().__init__()
        width, heads = config.widths[stage], config.num_heads[stage]
        self.local = Local(width, int(width * config.local_ratio), drop_path)
        self.steps = nn.ModuleList(reduction_step(width) for _ in range(steps))
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, qkv_bias=True)
        self.shares = nn.Parameter(torch.zeros(2))
        self.global_norm = nn.LayerNorm(width)
        self.global_mlp = Mlp(width, int(width * config.global_ratio))
        self.broadcast = Broadcast(width, heads)
        self.norm2, self.mlp = (
            nn.LayerNorm(width),
            GatedMlp(width, width * config.mlp_ratios[stage]),
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, maps: Tensor, global_tokens: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.local(maps)
        global_tokens = self.refined(maps, global_tokens)
        size = maps.shape[2:]
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = tokens + self.drop_path(self.broadcast(tokens, global_tokens))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens.transpose(1, 2).unflatten(2, size), global_tokens

    def refined(self, maps: Tensor, global_tokens: Tensor) -> Tensor:
        """The weighted sum of the map, reduced to as many tokens, and the global tokens, through
        their MLP: [batch, width, h, w], [batch, g, width] -> [batch, g, width]"""
        for step in self.steps:
            maps = step(maps)
        reduced = maps.flatten(2).transpose(1, 2)
        reduced = reduced + self.attn(self.norm1(reduced))
        of_map, of_global = self.shares.softmax(0)
        mixed = of_map * reduced + of_global * global_tokens
        refined: Tensor = mixed + self.global_mlp(self.global_norm(mixed))
        return refined


class Stage(nn.Module):
    """Merging but for the first stage, then blocks; maps and global tokens as of a block."""

    def __init__(self, merge: Merge | None, blocks: list[DualTokenBlock]) -> None:
        super().__init__()
        self.merge, self.blocks = merge, nn.ModuleList(blocks)

    def forward(self, maps: Tensor, global_tokens: Tensor) -> tuple[Tensor, Tensor]:
        if self.merge is not None:
            maps, global_tokens = self.merge(maps, global_tokens)
        for block in self.blocks:
            maps, global_tokens = block(maps, global_tokens)
        return maps, global_tokens


class DualTokenTransformer(nn.Module):
    """images [batch, in_chans, h, w] -> outputs [batch, num_outputs]"""

    def __init__(self, config: DualToken, num_outputs: int) -> None:
        super().__init__()
        self.num_classes = num_outputs
        self.num_features = self.embed_dim = config.widths[-1]
        self.stem = stem(config.in_chans, config.widths[0], config.stem_stride)
        self.stem_norm = nn.LayerNorm(config.widths[0])
        self.global_tokens = nn.Parameter(torch.empty(config.global_side**2, config.widths[0]))
        side, self.stages = config.img_size // config.stem_stride, nn.ModuleList()
        rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            merge = Merge(config.widths[stage - 1], width) if stage else None
            steps = (side // 2**stage // config.global_side).bit_length() - 1
            own = [DualTokenBlock(config, stage, steps, rates.pop(0)) for _ in range(depth)]
            self.stages.append(Stage(merge, own))
        self.norm = nn.LayerNorm(self.num_features)
        self.head = nn.Linear(self.num_features, num_outputs) if num_outputs else nn.Identity()
        nn.init.trunc_normal_(self.global_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed."""
        return {"global_tokens"}

    def forward_features(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> tokens [batch, n, width of the last stage]"""
        maps = self.stem_norm(self.stem(images).movedim(1, -1)).movedim(-1, 1)
        global_tokens = self.global_tokens.expand(images.shape[0], -1, -1)
        for stage in self.stages:
            maps, global_tokens = stage(maps, global_tokens)
        tokens: Tensor = self.norm(maps.flatten(2).transpose(1, 2))
        return tokens

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """tokens [batch, n, width] -> outputs [batch, num_outputs], or features [batch, width]"""
        pooled = tokens.mean(1)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


class _Declaration(DualTokenDeclaration):
    model_class = DualTokenTransformer


@architecture(
    "dual_token",
    paper="Chu et al. 2023, arXiv 2309.12424; Huang et al. 2022, arXiv 2207.05557",
    symmetries=_Declaration.symmetries,
    training_factors=("drop_path_rate",),
    tiny={
        "img_size": 16,
        "widths": (8, 12),
        "depths": (1, 1),
        "num_heads": (2, 2),
        "mlp_ratios": (2, 2),
        "global_side": 2,
        "stem_stride": 2,
    },
)
def dual_token(config: DualToken, num_outputs: int) -> nn.Module:
    """Local tokens by convolution, and few position-aware global tokens that all attend to."""
    return DualTokenTransformer(config, num_outputs)
