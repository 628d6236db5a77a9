"""L2ViT: blocks with attention in windows take turns with linear attention over the whole map."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from timm.layers.drop import calculate_drop_path_rates
from timm.layers.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.attention._concentration import (
    GlobalAttention,
    GlobalBlock,
    LocalBlock,
    WindowAttention,
    convolved,
)
from vitarium.architectures.attention._heads import NO_PROBABILITIES
from vitarium.architectures.base import (
    DROP_RATES,
    TransformerConfig,
    architecture,
    without_hidden_units,
)
from vitarium.architectures.symmetries.base import Axis, Maps, UnitGroup
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration


class L2Vit(TransformerConfig):
    """L2ViT, a hierarchical ViT with windows and linear attention by turns; by default L2ViT-T.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    patch_size: Literal[1, 2, 4] = 4
    """Stride of the stem, two convolutions of which each halves the image (4), the first (2), or
    none (1)."""
    embed_dim: PositiveInt = 96
    """Features per token in the first stage, an even number; each further stage doubles it."""
    depths: tuple[PositiveInt, ...] = Field((2, 2, 6, 2), min_length=1)
    """Number of blocks in each stage: windows first, linear attention second, and so on."""
    num_heads: tuple[PositiveInt, ...] = (3, 6, 12, 24)
    """Attention heads per block, for each stage."""
    window_size: PositiveInt = 7
    """Height and width of an attention window, in patches."""
    min_denominator: PositiveFloat = 1e-6
    """Smallest number that a row of linear attention is divided by. The authors' 100 is larger than
    most row sums, so that rows do not sum to 1 and outputs grow with the number of tokens."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.attn_drop_rate:
            yield NO_PROBABILITIES.format("linear attention")
        if self.embed_dim % 2:
            yield f"embed_dim {self.embed_dim} is odd, and the stem begins with half of it"
        yield from without_hidden_units(self.embed_dim, mlp_ratio=self.mlp_ratio)
        if len(self.num_heads) != len(self.depths):
            yield (
                f"num_heads {list(self.num_heads)} is for {len(self.num_heads)} stages, but "
                f"depths {list(self.depths)} for {len(self.depths)}; give one of both for each"
            )
        for stage, (width, heads) in enumerate(zip(self.widths, self.num_heads, strict=False)):
            if width % heads:
                yield f"stages.{stage}: its width of {width} is not divisible by num_heads {heads}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Features per token, of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))


class Stem(nn.Module):
    """Images [batch, in_chans, h, w] -> maps [batch, h / stride, w / stride, dim]"""

    def __init__(self, in_chans: int, dim: int, stride: int) -> None:
        super().__init__()
        strides = (min(stride, 2), max(stride // 2, 1))
        first, second = (
            nn.Conv2d(*channels, 3, stride=step, padding=1)
            for channels, step in zip(((in_chans, dim // 2), (dim // 2, dim)), strides, strict=True)
        )
        layers = (first, nn.BatchNorm2d(dim // 2), nn.ReLU(), second, nn.BatchNorm2d(dim))
        self.proj, self.norm = nn.Sequential(*layers), nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return maps


class Merge(nn.Module):
    """Maps [batch, rows, columns, dim] -> half as many rows and columns of outputs; an odd side is
    padded by zeros."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.proj = nn.LayerNorm(dim), nn.Conv2d(dim, outputs, 2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = maps.shape[1:3]
        return convolved(F.pad(self.norm(maps), (0, 0, 0, columns % 2, 0, rows % 2)), self.proj)


class Stage(nn.Module):
    """A merge, but in the first stage, and blocks: maps [batch, rows, columns, dim]."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample, self.blocks = downsample, nn.Sequential(*blocks)

    def forward(self, maps: Tensor) -> Tensor:
        outputs: Tensor = self.blocks(self.downsample(maps))
        return outputs


class L2VisionTransformer(nn.Module):
    """Images [batch, in_chans, h, w] -> outputs [batch, num_classes]; see `L2Vit`."""

    output_fmt = "NHWC"

    def __init__(self, config: L2Vit, num_classes: int) -> None:
        super().__init__()
        widths = config.widths
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = widths[-1]
        self.patch_embed = Stem(config.in_chans, widths[0], config.patch_size)
        merges = [nn.Identity(), *(Merge(*pair) for pair in pairwise(widths))]
        rates: Any = calculate_drop_path_rates(
            config.drop_path_rate, list(config.depths), stagewise=True
        )
        self.stages = nn.Sequential(
            *(
                Stage(merge, [_block(config, stage, n, rate) for n, rate in enumerate(by_block)])
                for stage, (merge, by_block) in enumerate(zip(merges, rates, strict=True))
            )
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(widths[-1], num_classes) if num_classes else nn.Identity()
        self.apply(_initialize)

    def forward_features(self, images: Tensor) -> Tensor:
        """-> maps [batch, rows, columns, embed_dim] after the last norm"""
        maps: Tensor = self.norm(self.stages(self.patch_embed(images)))
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps -> outputs [batch, num_classes], or the features that the head sees."""
        features: Tensor = self.head_drop(maps.mean((1, 2)))
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _block(config: L2Vit, stage: int, number: int, rate: float) -> nn.Module:
    dim, heads = config.widths[stage], config.num_heads[stage]
    shared: dict[str, Any] = {"qkv_bias": config.qkv_bias, "proj_drop": config.proj_drop_rate}
    settings = (config.mlp_ratio, config.proj_drop_rate, rate)
    if number % 2:
        linear = GlobalAttention(dim, heads, **shared)
        linear.min_denominator = config.min_denominator
        return GlobalBlock(linear, *settings)
    in_windows = WindowAttention(dim, heads, **shared)
    in_windows.window = config.window_size
    return LocalBlock(in_windows, *settings)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class L2VitDeclaration(VitDeclaration):
    """Units can be exchanged: channels of each stage's stream, heads, channels inside of them, and
    hidden units of MLPs and of the stem."""

    model_class = L2VisionTransformer

    def declare(self) -> None:
        model = self.model
        self._stem(model.patch_embed)
        for number, stage in enumerate(model.stages):
            at = f"stages.{number}"
            if number:
                merge = stage.downsample
                self.norm(f"{at}.downsample.norm", merge.norm, ())
                incoming = self.read
                self._stream(number)
                shape = (len(merge.proj.weight), merge.proj.in_channels, 4)
                axes = (self.written, incoming, NOTHING)
                self.piece(f"{at}.downsample.proj.weight", shape, axes)
                self.bias(f"{at}.downsample.proj", merge.proj, self.written)
            for block_number, block in enumerate(stage.blocks):
                self.block(f"{at}.blocks.{block_number}", block)
        self.norm("norm", model.norm, ())
        for layers in self.heads:
            self.layers(layers)

    def _stream(self, stage: int) -> None:
        """Go on with that stage's stream; without a head, the last one's order is the features'."""
        dim = self.model.embed_dim // 2 ** (len(self.model.stages) - 1 - stage)
        last = stage == len(self.model.stages) - 1
        name = None if last and not all(self.heads) else f"stages.{stage}.stream"
        if name:
            self.groups[name] = UnitGroup(dim)
        self.written, self.read = Axis(name), Axis(name, reads=True)

    def _stem(self, stem: Any) -> None:
        hidden = "patch_embed.hidden"
        first, second = stem.proj[0], stem.proj[3]
        self.groups[hidden] = UnitGroup(first.out_channels)
        self.written = Axis(hidden)
        self.linear("patch_embed.proj.0", self.written, NOTHING, first)
        self.norm("patch_embed.proj.1", stem.proj[1], ())
        self._stream(0)
        shape = (second.out_channels, second.in_channels, 9)
        axes = (self.written, Axis(hidden, reads=True), NOTHING)
        self.piece("patch_embed.proj.3.weight", shape, axes)
        self.bias("patch_embed.proj.3", second, self.written)
        self.norm("patch_embed.proj.4", stem.proj[4], ())
        self.norm("patch_embed.norm", stem.norm, ())

    def block(self, at: str, block: Any) -> None:
        attention, is_global = block.attn, isinstance(block.attn, GlobalAttention)
        logits_of: Maps = "permutation" if is_global else "invertible"
        self.heads_of(f"{at}.attn", attention, normed=False, logits_of=logits_of)
        if is_global:
            shape = (attention.num_heads,)
            self.piece(f"{at}.attn.temperature", shape, (Axis(f"{at}.attn.heads"),))
        self.mlp(f"{at}.mlp", block.mlp)
        for name, part in block.named_modules():
            if isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
                self.norm(f"{at}.{name}", part, ())
            elif isinstance(part, nn.Conv2d):
                self.linear(f"{at}.{name}", self.written, NOTHING, part)

    def norm(self, name: str, norm: nn.Module, readers: Readers) -> None:
        for kind, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                self.piece(f"{name}.{kind}", tensor.shape, (self.written,), elementwise=True)


_SMALL = {"depths": (2, 2, 18, 2)}
_BASE = {**_SMALL, "embed_dim": 128, "num_heads": (4, 8, 16, 32)}


@architecture(
    "l2vit",
    paper="Zheng 2025, arXiv 2501.16182",
    presets={
        "l2vit_tiny_224": {},
        "l2vit_small_224": _SMALL,
        "l2vit_base_224": _BASE,
        "l2vit_base_384": {**_BASE, "img_size": 384, "window_size": 12},
    },
    symmetries=L2VitDeclaration.symmetries,
    training_factors=DROP_RATES,
    tiny={"img_size": 16, "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)},
)
def l2vit(config: L2Vit, num_outputs: int) -> nn.Module:
    return L2VisionTransformer(config, num_outputs)
