"""Mixed-scale tokens after Charm: big patches, some of them cut into patches of full resolution.

An image is cut into big patches. Those with the most in them become several tokens, in full
resolution; the next ones fewer, shrunk to a middle scale, where there is one; each of the others is
shrunk to a patch and becomes one.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.tokens._scale_choice import (
    ScaleChoice,
    big_patches,
    entropies,
    evenly_spread,
    gradients,
)
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class MixedScaleVit(Vit):
    """A ViT with tokens of several scales, finer where there is more to see; by default ViT-Ti/16.

    images [batch, in_chans, img_size, img_width] -> outputs [batch, num_outputs]
    """

    img_width: PositiveInt | None = None
    """Width of the input images, in pixels, of which img_size is then the height; none: they are
    square."""
    big_patch: int = Field(2, ge=2)
    """Side of a big patch, in patches."""
    num_fine: NonNegativeInt = 16
    """Big patches of an image that are cut into big_patch^2 tokens of full resolution."""
    num_middle: NonNegativeInt = 0
    """Big patches, the next best ones, that are shrunk to a scale between and cut into
    middle_side^2 tokens; 0: there are two scales."""
    middle_side: int = Field(2, ge=2)
    """Side, in patches, of a big patch that is shrunk to the middle scale; it divides big_patch."""
    score: Literal["entropy", "gradient", "random"] = "entropy"
    """By what big patches are chosen: the entropy of their gray levels, their mean gradient
    (Sobel), or at random in training; random ones are evenly spread in eval mode."""
    candidate_ratio: float = Field(1.0, ge=1)
    """In training num_fine are drawn from the best candidate_ratio * num_fine, and num_middle from
    as many times more after these; published: 2. With more than 1 models are never trained in
    stacks, nor with random scores."""
    scale_embedding: bool = True
    """Add a learned vector for each scale; without, the weights are those of a `vit` by name and
    shape."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        return (self.in_chans, self.img_size, self.img_width or self.img_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's patches."""
        _, height, width = self.input_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_big(self) -> int:
        """Big patches of an image."""
        return math.prod(length // self.big_patch for length in self.grid)

    @property
    def num_tokens(self) -> int:
        """Tokens of an image, without class token and registers."""
        coarse = self.num_big - self.num_middle - self.num_fine
        refined = self.num_middle * self.middle_side**2 + self.num_fine * self.big_patch**2
        return coarse + refined

    @property
    def parts(self) -> tuple[int, ...]:
        """Side of a big patch in tokens, at each scale from coarse to fine."""
        return (1, self.middle_side, self.big_patch) if self.num_middle else (1, self.big_patch)

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        side = self.patch_size * self.big_patch
        lengths = {"img_size": self.img_size, "img_width": self.img_width}
        if uneven := [
            f"{name} {length}" for name, length in lengths.items() if (length or 0) % side
        ]:
            yield f"{' and '.join(uneven)}: not divisible by big patches of {side} pixels"
        elif self.num_fine > self.num_big:
            yield f"num_fine {self.num_fine}: an image has {self.num_big} big patches"
        elif self.num_fine + self.num_middle > self.num_big:
            left = self.num_big - self.num_fine
            yield f"num_middle {self.num_middle}: {left} big patches are not cut finely"
        side, big = self.middle_side, self.big_patch
        if self.num_middle and (big % side or side == big):
            yield f"middle_side {side} is no proper divisor of big_patch {big}"
        if not self.num_middle and side != type(self).model_fields["middle_side"].default:
            yield f"middle_side {side} is of a middle scale, and num_middle is 0"


class MixedTokens(NamedTuple):
    """Tokens of an image, scale by scale from coarse to fine, and where they come from."""

    tokens: Tensor
    """[batch, tokens, embed_dim]"""
    numbers: tuple[Tensor, ...]
    """Of each scale the cells that its tokens are, of the grid of such cells, [batch, tokens]"""


class MixedScaleEmbed(nn.Module):
    """images [batch, in_chans, height, width] -> `MixedTokens`"""

    def __init__(self, config: MixedScaleVit, **sizes: Any) -> None:
        super().__init__()
        patch, width = config.patch_size, config.embed_dim
        self.img_size, self.patch_size = config.input_size[1:], (patch, patch)
        self.side, self.parts = patch * config.big_patch, config.parts
        self.num_big, self.big_columns = config.num_big, config.grid[1] // config.big_patch
        self.position_grid, self.num_patches = config.grid, math.prod(config.grid)
        counts = (config.num_fine, config.num_middle)
        self.choice = ScaleChoice(counts, config.num_big, config.score, config.candidate_ratio)
        self._shrink = [shrinking(self.side, parts * patch) for parts in self.parts[:-1]]
        self.proj, self.norm = nn.Conv2d(config.in_chans, width, patch, patch), nn.Identity()

    def forward(self, images: Tensor) -> MixedTokens:
        pixels, numbers = self.cut(images, self.choice(self.scores(images)))
        row = pixels.permute(0, 2, 3, 1, 4).flatten(3)  # patches beside each other: one image
        tokens = self.proj(row).flatten(2).transpose(1, 2)
        return MixedTokens(tokens, numbers)

    def scores(self, images: Tensor) -> Tensor:
        """Of the big patches of images [batch, c, h, w]; larger ones are cut: [batch, n]"""
        if self.choice.score == "random":  # evenly spread, unless the choice draws
            number, (fine, middle) = self.num_big, self.choice.counts
            refined = evenly_spread(fine + middle, number, images.device)
            rank = torch.zeros(number, device=images.device)
            rank[refined] = 1
            rank[refined[evenly_spread(fine, fine + middle, images.device)]] = 2
            return rank.expand(images.shape[0], -1)
        score = entropies if self.choice.score == "entropy" else gradients
        return score(images, self.side)

    def cut(self, images: Tensor, chosen: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pixels of all tokens [batch, tokens, c, side, side], and the numbers of their cells.

        images [batch, c, h, w], numbers of the big patches of each scale [batch, k] -> of each
        scale numbers [batch, k * parts^2], in the grid of its cells, big patch by big patch.
        """
        big, pixels, numbers = big_patches(images, self.side), [], []
        for scale, (of_scale, parts) in enumerate(zip(chosen, self.parts, strict=True)):
            inside = _taken(big, of_scale)
            if scale < len(self._shrink):
                shrink = self._shrink[scale].to(big)
                inside = shrink @ inside @ shrink.T
            cells = big_patches(inside.flatten(0, 1), self.patch_size[0])
            pixels.append(cells.unflatten(0, of_scale.shape).flatten(1, 2))
            columns, offsets = self.big_columns * parts, torch.arange(parts, device=big.device)
            within = (offsets.unsqueeze(1) * columns + offsets).flatten()
            corner = (of_scale // self.big_columns * columns + of_scale % self.big_columns) * parts
            numbers.append((corner.unsqueeze(-1) + within).flatten(1))
        return torch.cat(pixels, dim=1), tuple(numbers)


def _taken(big: Tensor, numbers: Tensor) -> Tensor:
    """[batch, n, c, h, w] and [batch, k] -> [batch, k, c, h, w]"""
    index = numbers.view(*numbers.shape, 1, 1, 1)
    return big.gather(1, index.expand(*numbers.shape, *big.shape[2:]))


def shrinking(old: int, new: int) -> Tensor:
    """The matrix [new, old] that shrinks columns of pixels, bicubic with antialiasing."""
    identity = torch.eye(old, dtype=torch.float64, device="cpu").view(1, 1, old, old)
    size = (new, old)  # torch 2.15 resizes a single column wrongly
    rows = F.interpolate(identity, size, mode="bicubic", align_corners=False, antialias=True)
    return rows[0, 0]


class MixedScaleVisionTransformer(VisionTransformer):
    """timm's, with tokens of several scales; there is no class of timm's for it.

    `pos_embed` is of the grid of patches; what was shrunk has the mean of its patches' positions.
    """

    def __init__(self, config: MixedScaleVit, num_outputs: int) -> None:
        embed = partial(MixedScaleEmbed, config)
        super().__init__(**config.arguments(), embed_layer=embed, num_classes=num_outputs)
        self.patch_embed.num_patches = config.num_tokens  # positions have been drawn
        self.parts, self.position_grid = config.parts, config.grid
        self.scale_embed: nn.Parameter | None = None
        if config.scale_embedding:
            self.scale_embed = nn.Parameter(
                0.02 * torch.randn(1, len(config.parts), config.embed_dim)
            )

    def _pos_embed(self, x: Any) -> Tensor:
        """`MixedTokens` with positions and scales, after the prefix: [batch, prefix + n, width]"""
        assert self.pos_embed is not None
        before = 0 if self.no_embed_class else self.num_prefix_tokens
        of_prefix, of_patches = self.pos_embed[0].tensor_split((before,))
        (rows, columns), added = self.position_grid, []
        for parts, numbers in zip(self.parts, x.numbers, strict=True):
            cell = self.parts[-1] // parts
            grid = of_patches.unflatten(0, (rows // cell, cell, columns // cell, cell))
            added.append(grid.mean((1, 3)).flatten(0, 1)[numbers])
        if (vectors := self.scale_embed) is not None:
            added = [table + vectors[:, n] for n, table in enumerate(added)]
        tokens = x.tokens + torch.cat(added, dim=1)
        learned = (self.cls_token, self.reg_token)
        prefix: list[Tensor] = [token for token in learned if token is not None]
        if prefix:
            first = torch.cat(prefix, dim=1)
            first = first + of_prefix if before else first
            tokens = torch.cat(
                [first.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1
            )
        positioned: Tensor = self.pos_drop(tokens)
        return positioned


class MixedScaleDeclaration(TokenizerDeclaration):
    def embedding(self) -> None:
        """See the base."""
        super().embedding()
        if (vectors := getattr(self.model, "scale_embed", None)) is not None:
            self.added("scale_embed", vectors)


@architecture(
    "mixed_scale",
    paper="Behrad et al. 2025, arXiv 2504.02522",
    symmetries=MixedScaleDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "candidate_ratio"),
    tiny={
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "num_fine": 2,
    },
)
def mixed_scale(config: MixedScaleVit, num_outputs: int) -> nn.Module:
    """A ViT with tokens of two or three scales, the finest where an image has the most in it."""
    return MixedScaleVisionTransformer(config, num_outputs)
