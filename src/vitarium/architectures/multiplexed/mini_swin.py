"""Mini-Swin: a Swin transformer whose consecutive blocks share their large matrices."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from timm.layers.drop import calculate_drop_path_rates
from timm.models.swin_transformer import SwinTransformer, SwinTransformerStage
from timm.models.vision_transformer import init_weights_vit_timm
from torch import nn

from vitarium.architectures.base import DROP_RATES, architecture, without_hidden_units
from vitarium.architectures.multiplexed import _windows as windows
from vitarium.architectures.multiplexed._blocks import attention_parts
from vitarium.architectures.multiplexed._sharing import (
    KernelSize,
    Multiplexing,
    Sharing,
    fits,
    group_of,
    group_sizes,
)


def _read(value: Any) -> Any:
    """One complaint, where a union would have one for each kind of value."""
    if not all(map(fits, value if isinstance(value, list | tuple) else [value])):
        raise ValueError(
            f"{value!r} is not a number of blocks from 1, 'all', or a list with one entry for "
            "each stage: such a number, 'all', or a list of such numbers"
        )
    return value


StageSharing = Annotated[PositiveInt | Literal["all"] | tuple[Sharing, ...], BeforeValidator(_read)]
"""2 or "all": the same in every stage; [2, 2, "all", [1, 1]]: of each stage its own."""


class MiniSwin(Multiplexing):
    """MiniViT's Swin transformer, whose blocks share weights; the defaults are Mini-Swin-T."""

    patch_size: PositiveInt = 4
    """Height and width of a patch, in pixels."""
    embed_dim: PositiveInt = 96
    """Features per token in the first stage; each further stage doubles it."""
    depths: tuple[PositiveInt, ...] = Field((2, 2, 6, 2), min_length=1)
    """Number of blocks in each stage."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Attention heads per block, for each stage."""
    window_size: PositiveInt = 7
    """Height and width of an attention window, in patches; a smaller feature map is one window."""
    norm_eps: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm, added to the variance."""
    share: StageSharing = "all"
    """Blocks that share one set of weights: a number, "all" (of a stage), or a list with one entry
    for each stage: a number, "all", or a list of group sizes."""
    position_bias: bool = True
    """Use Swin's relative position bias in each window, shared like the matrices."""
    convolution: KernelSize = 7
    """Kernel size (odd) of a depth-wise convolution over the patches, between attention and MLP of
    each block; 0: no convolution."""

    @property
    def group_sizes(self) -> tuple[tuple[int, ...], ...]:
        return stage_group_sizes(self.share, self.depths)

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        yield from without_hidden_units(self.embed_dim, mlp_ratio=self.mlp_ratio)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"num_heads {list(self.num_heads)} is for {len(self.num_heads)} stages, but "
                f"depths {list(self.depths)} for {len(self.depths)}; give one of both for each"
            )
        for stage, heads in enumerate(self.num_heads):
            if self.embed_dim * 2**stage % heads:
                raise ValueError(
                    f"layers.{stage}: its width of {self.embed_dim * 2**stage} is not divisible "
                    f"by num_heads {heads}"
                )
        stage_group_sizes(self.share, self.depths)
        return self


def stage_group_sizes(share: StageSharing, depths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Of each stage, how many consecutive blocks each set of weights serves; else ValueError."""
    shares = share if isinstance(share, tuple) else (share,) * len(depths)
    if len(shares) != len(depths):
        raise ValueError(
            f"share has {len(shares)} entries, but there are {len(depths)} stages; give one for "
            "each stage, or a single number or 'all' for every stage"
        )
    sizes = []
    for stage, (stage_share, depth) in enumerate(zip(shares, depths, strict=True)):
        try:
            sizes.append(group_sizes(stage_share, depth))
        except ValueError as error:
            raise ValueError(f"layers.{stage}: {error}") from None
    return tuple(sizes)


class MiniSwinTransformer(SwinTransformer):
    """Blocks with small parts of their own, and in each stage `shared` with its groups' weights.

    A shared matrix is one parameter: `layers.2.shared.0.attn.qkv.weight`; that of a block is
    `layers.2.blocks.1.norm1.weight`. All else is as in timm.
    """

    def __init__(self, config: MiniSwin, num_outputs: int) -> None:
        norm = partial(nn.LayerNorm, eps=config.norm_eps)
        names = {"img_size", "patch_size", "in_chans", "embed_dim", "num_heads", "window_size"}
        sizes = config.model_dump(include={*names, "drop_rate"})
        without_blocks: dict[str, Any] = {"depths": (0,) * len(config.depths), "norm_layer": norm}
        super().__init__(**sizes, **without_blocks, num_classes=num_outputs)
        self.config, self._norm = config, norm
        # where timm's Swin has its classifier: heads are put there
        self.pretrained_cfg = {"classifier": "head.fc"}
        depths = list(config.depths)
        rates = calculate_drop_path_rates(config.drop_path_rate, depths, stagewise=True)
        for number, (stage, stage_rates) in enumerate(zip(self.layers, rates, strict=True)):
            self._fill(number, cast(SwinTransformerStage, stage), cast(list[float], stage_rates))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As timm's, for rates that differ by depth; shared weights go with their first block."""
        patterns: dict[str, Any] = super().group_matcher(coarse)
        if coarse:
            return patterns
        shared = [
            (rf"^layers\.{stage}\.shared\.{group}\.", (stage, sum(sizes[:group])))
            for stage, sizes in enumerate(self.config.group_sizes)
            for group in range(len(sizes))
        ]
        return patterns | {"blocks": [*shared, *patterns["blocks"]]}

    def _fill(self, number: int, stage: SwinTransformerStage, rates: list[float]) -> None:
        """Put the shared weights and the blocks into a stage."""
        config = self.config
        window = (config.window_size, config.window_size)
        stage.depth = len(rates)
        stage.shared = nn.ModuleList(
            windows.SharedWindowWeights(
                config.embed_dim * 2**number,
                config.num_heads[number],
                windows.fitting_window(self._resolution(number), window),
                config,
                self._norm,
                position_bias=config.position_bias,
            )
            for _ in config.group_sizes[number]
        )
        stage.shared.apply(init_weights_vit_timm)
        stage.blocks = nn.Sequential(
            *(self._block(number, stage, index, rate) for index, rate in enumerate(rates))
        )

    def _block(
        self, number: int, stage: SwinTransformerStage, index: int, drop_path: float
    ) -> windows.MultiplexedWindowBlock:
        config = self.config
        dim, heads = config.embed_dim * 2**number, config.num_heads[number]
        group = group_of(config.group_sizes[number], index)
        shared = cast(windows.SharedWindowWeights, cast(nn.ModuleList, stage.shared)[group])
        attention = windows.MultiplexedWindowAttention(
            cast(windows.SharedWindowAttention, shared.attn),
            heads,
            resolution=self._resolution(number),
            shifted=index % 2 == 1,
            **attention_parts(config, heads, bias=True),
        )
        parts = (shared, attention, dim, config, self._norm)
        return windows.MultiplexedWindowBlock(*parts, drop_path=drop_path)

    def _resolution(self, number: int) -> windows.Size:
        """Of a stage's maps: each stage halves them, and an odd side is padded before."""
        rows, columns = cast(windows.Size, self.patch_embed.grid_size)
        return (-(-rows // 2**number), -(-columns // 2**number))


_TINY_STAGES = {"depths": (2, 2), "num_heads": (2, 2)}
_SMALL = {"depths": (2, 2, 18, 2), "share": 2}
_BASE = {**_SMALL, "embed_dim": 128, "num_heads": (4, 8, 16, 32)}


@architecture(
    "mini_swin",
    paper="Zhang et al. 2022, arXiv 2204.07154",
    symmetries="each block mixes the heads by a map of its own, and blocks share their heads",
    presets={
        "mini_swin_tiny_patch4_window7_224": {},
        "mini_swin_small_patch4_window7_224": _SMALL,
        "mini_swin_base_patch4_window7_224": _BASE,
        "mini_swin_base_patch4_window12_384": {**_BASE, "img_size": 384, "window_size": 12},
    },
    training_factors=(*DROP_RATES, "mixing_init"),
    tiny={"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, **_TINY_STAGES},
)
def mini_swin(config: MiniSwin, num_outputs: int) -> nn.Module:
    return MiniSwinTransformer(config, num_outputs)
