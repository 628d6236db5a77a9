"""SparseFormer: few latent tokens, each with a box of the image that it moves and reads.

Sizes, order and starts are those of the first version, or of the bootstrapped one, whose norms have
an epsilon of 1e-5 in the release and 1e-6 here. Stochastic depth acts on the branches of the
tokens, not on the movement of boxes; the stem's normalization is a LayerNorm over channels.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import ArchitectureConfig, architecture, without_hidden_units
from vitarium.architectures.tokens._bootstrapped_focusing import BootstrappedBlock, ReadingBlock
from vitarium.architectures.tokens._focusing import NORM_EPS, BoxReader, FocusingBlock
from vitarium.architectures.tokens._focusing_declaration import FocusingDeclaration


class SparseFormerConfig(ArchitectureConfig):
    """SparseFormer; the defaults are SparseFormer-T.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    img_size: PositiveInt = 224
    """Height and width of the input images, in pixels."""
    in_chans: PositiveInt = 3
    """Channels of the input images: 3 for RGB, 1 for gray."""
    latent_tokens: PositiveInt = 49
    """Latent tokens, each with a box: a square grid of boxes of half the image's size; those beyond
    a square number start with the whole image."""
    focusing: Literal["first", "bootstrapped"] = "first"
    """How tokens focus: attention, movement of boxes, reading and MLP (first version); or reading,
    encoding of boxes, attention, MLP and movement, from one latent embedding for all tokens, and
    of full width reading and encoding alone (bootstrapped)."""
    focus_dim: int = Field(256, ge=4)
    """Width of the tokens while they focus."""
    focus_heads: PositiveInt = 64
    """Attention heads while the tokens focus; focus_dim has to be a multiple of it."""
    focus_repeats: PositiveInt = 4
    """How often the first block, which focuses, is run, with the same weights."""
    points: int = Field(36, ge=2)
    """Points that each token reads in its box."""
    embed_dim: int = Field(512, ge=4)
    """Width of the tokens in all blocks but the first."""
    depth: PositiveInt = 8
    """Blocks of that width; the first of them focuses, too, and the others are plain."""
    num_heads: PositiveInt = 64
    """Attention heads of those; embed_dim has to be a multiple of it."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of each MLP, as a multiple of the width."""
    stem_width: PositiveInt = 96
    """Channels of the map that is read."""
    stem_stride: Literal[1, 2, 4] = 4
    """Pixels between cells of that map; small images need a small one."""
    class_token: bool = False
    """A class token joins the latent tokens after they focused, and the head sees it; else the mean
    of the latent tokens."""
    drop_path_rate: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block, in [0, 1); it rises linearly from 0, each repeat of
    the first block counted."""

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
        for width, heads in (("focus_dim", "focus_heads"), ("embed_dim", "num_heads")):
            sizes = getattr(self, width), getattr(self, heads)
            if sizes[0] % sizes[1]:
                yield f"{width} {sizes[0]} is not divisible by {heads} {sizes[1]}"
            yield from without_hidden_units(sizes[0], mlp_ratio=self.mlp_ratio)
            if self.focusing == "bootstrapped" and sizes[0] % 4:
                yield f"{width} {sizes[0]} is not divisible by the 4 coordinates that are encoded"


class SparseFormer(nn.Module):
    """tokens [batch, n, width] with boxes (x1, y1, x2, y2) in shares of the image, [batch, n, 4]"""

    def __init__(self, config: SparseFormerConfig, num_outputs: int) -> None:
        super().__init__()
        width, repeats = config.embed_dim, config.focus_repeats
        self.num_classes, self.num_features, self.embed_dim = num_outputs, width, width
        self.num_prefix_tokens = int(config.class_token)
        strides = {4: (2, 2), 2: (2, 1), 1: (1, 1)}[config.stem_stride]
        self.stem = nn.Conv2d(config.in_chans, config.stem_width, 7, strides[0], 3)
        self.pool_stem = nn.MaxPool2d(3, strides[1], 1)
        is_first = config.focusing == "first"
        count = config.latent_tokens if is_first else 1
        self.latents = nn.Parameter(torch.empty(count, config.focus_dim))
        self.boxes = nn.Parameter(torch.empty(config.latent_tokens, 4))
        rates = torch.linspace(0, config.drop_path_rate, repeats + config.depth, device="cpu")
        drops = rates.tolist()
        self.blocks = nn.ModuleList(_focusing_blocks(config, drops))
        for rate in drops[repeats + 1 :]:
            plain = {"qkv_bias": True, "drop_path": rate, "norm_layer": _norm}
            self.blocks.append(Block(width, config.num_heads, config.mlp_ratio, **plain))
        after: nn.Module = _norm(width) if is_first else nn.Identity()
        self.transition = nn.Sequential(nn.Linear(config.focus_dim, width), after)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if config.class_token else None
        self.norm = _norm(width)
        self.head = nn.Linear(width, num_outputs) if num_outputs else nn.Identity()
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.kaiming_normal_(self.stem.weight, mode="fan_out", nonlinearity="relu")
        nn.init.trunc_normal_(self.latents, std=1.0)
        self.boxes.copy_(initial_boxes(len(self.boxes)))
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        for block in self.blocks:
            if isinstance(block, BoxReader):
                block.reset()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed."""
        return {"latents", "boxes", "cls_token"}

    def image_map(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> [batch, stem_width, h / stride, w / stride]"""
        maps = self.pool_stem(F.relu(self.stem(images)))
        maps = F.layer_norm(maps.movedim(1, -1), maps.shape[1:2], eps=1e-5)
        return maps.movedim(-1, 1)

    def focus(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [batch, in_chans, h, w] -> tokens [batch, latent_tokens, embed_dim], boxes [batch,
        latent_tokens, 4]"""
        maps = self.image_map(images)
        tokens = self.latents.expand(len(self.boxes), -1).expand(images.shape[0], -1, -1)
        boxes = self.boxes.expand(images.shape[0], -1, -1)
        tokens, boxes = self.blocks[0](tokens, boxes, maps)
        tokens, boxes = self.blocks[1](self.transition(tokens), boxes, maps)
        return tokens, boxes

    def forward_features(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> tokens [batch, prefix + latent_tokens, embed_dim]"""
        tokens, _ = self.focus(images)
        if self.cls_token is not None:
            first = self.cls_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
            tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks[2:]:
            tokens = block(tokens)
        return tokens

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """tokens [batch, n, embed_dim] -> outputs [batch, num_outputs], or features [batch,
        embed_dim]"""
        pooled = tokens.mean(1) if self.cls_token is None else tokens[:, 0]
        features: Tensor = self.norm(pooled)
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """images [batch, in_chans, h, w] -> outputs [batch, num_outputs]"""
        return self.forward_head(self.forward_features(images))


def _focusing_blocks(config: SparseFormerConfig, drops: list[float]) -> list[nn.Module]:
    """That of the tokens' first width, and that of the other."""
    read, repeats = (config.stem_width, config.points), config.focus_repeats
    before, after = drops[:repeats], drops[repeats : repeats + 1]
    focus, full = (config.focus_dim, config.focus_heads), (config.embed_dim, config.num_heads)
    if config.focusing == "bootstrapped":
        first = BootstrappedBlock(*focus, read, before, config.mlp_ratio)
        return [first, ReadingBlock(config.embed_dim, read, after)]
    return [
        FocusingBlock(*sizes, read, rates, config.mlp_ratio)
        for sizes, rates in ((focus, before), (full, after))
    ]


class SparseFormerDeclaration(FocusingDeclaration):
    model_class = SparseFormer


def initial_boxes(count: int) -> Tensor:
    """(x1, y1, x2, y2) of a square grid of boxes of half the image's size, row by row, and whole
    images for what is left of a count that is no square: [count, 4]"""
    root = math.isqrt(count)
    steps = torch.linspace(0, 0.5, root) if root > 1 else torch.full((1,), 0.25)
    corner = torch.cartesian_prod(steps, steps).flip(-1).view(-1, 2)
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(count, 1)
    boxes[: root**2] = torch.cat([corner, corner + 0.5], dim=-1)
    return boxes


def _norm(width: Any, **settings: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=NORM_EPS, **settings)


_BOOTSTRAPPED = {
    "focusing": "bootstrapped",
    "latent_tokens": 48,
    "focus_dim": 384,
    "focus_heads": 6,
    "points": 16,
    "embed_dim": 768,
    "depth": 9,
    "num_heads": 12,
    "stem_width": 64,
    "class_token": True,
}
_LARGE = {"focus_dim": 512, "focus_heads": 8, "embed_dim": 1024, "depth": 17, "num_heads": 16}


@architecture(
    "sparseformer",
    paper="Gao et al. 2024, arXiv 2304.03768",
    presets={
        "sparseformer_tiny": {},
        "sparseformer_small": {"latent_tokens": 64, "focus_dim": 320, "embed_dim": 640},
        "sparseformer_base": {
            "latent_tokens": 81,
            "focus_dim": 384,
            "embed_dim": 768,
            "depth": 10,
        },
        "sparseformer_bootstrapped_base": _BOOTSTRAPPED,
        "sparseformer_bootstrapped_large": _BOOTSTRAPPED | _LARGE,
    },
    symmetries=SparseFormerDeclaration.symmetries,
    training_factors=("drop_path_rate",),
    tiny={
        "img_size": 16,
        "latent_tokens": 5,
        "focus_dim": 8,
        "focus_heads": 2,
        "points": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "stem_width": 6,
        "stem_stride": 2,
    },
)
def sparseformer(config: SparseFormerConfig, num_outputs: int) -> nn.Module:
    """Few latent tokens that each move a box of the image, and read points of it."""
    return SparseFormer(config, num_outputs)
