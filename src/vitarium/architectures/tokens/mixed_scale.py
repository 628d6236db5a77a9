"""Mixed-scale tokens after Charm: big patches, some of them cut into patches of full resolution.

An image is cut into big patches. Those with the most in them become several tokens, in full
resolution; each of the others is shrunk to a patch and becomes one.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit

LEVELS = 16
"""Gray levels between an image's darkest and brightest pixel, of which entropies are taken."""


class MixedScaleVit(Vit):
    """A ViT with tokens of two scales, finer where there is more to see; by default ViT-Ti/16.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    big_patch: int = Field(2, ge=2)
    """Side of a big patch, in patches."""
    num_fine: NonNegativeInt = 16
    """Big patches of an image that are cut into big_patch^2 tokens of full resolution."""
    score: Literal["entropy", "gradient", "random"] = "entropy"
    """By what big patches are chosen: the entropy of their gray levels, their mean gradient
    (Sobel), or at random in training; random ones are evenly spread in eval mode."""
    candidate_ratio: float = Field(1.0, ge=1)
    """In training num_fine are drawn from the best candidate_ratio * num_fine; published: 2. With
    more than 1 models are never trained in stacks, nor with random scores."""
    scale_embedding: bool = True
    """Add a learned vector for each scale; without, the weights are those of a `vit` by name and
    shape."""

    @property
    def num_big(self) -> int:
        """Big patches of an image."""
        return (self.img_size // (self.patch_size * self.big_patch)) ** 2

    @property
    def num_tokens(self) -> int:
        """Tokens of an image, without class token and registers."""
        return self.num_big - self.num_fine + self.num_fine * self.big_patch**2

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        side = self.patch_size * self.big_patch
        if self.img_size % side:
            yield f"img_size {self.img_size} is not divisible by big patches of {side} pixels"
        elif self.num_fine > self.num_big:
            yield f"num_fine {self.num_fine}: an image has {self.num_big} big patches"


def big_patches(images: Tensor, side: int) -> Tensor:
    """Squares, row by row: [batch, c, rows * side, columns * side] -> [batch, n, c, side, side]"""
    cut = images.unflatten(2, (-1, side)).unflatten(-1, (-1, side))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def entropies(images: Tensor, side: int) -> Tensor:
    """Entropy of the gray levels of each big patch, in nats: [batch, c, h, w] -> [batch, n]

    Levels divide the range of each image, so that no standardization changes them.
    """
    gray = _gray(images)
    low, high = (extreme((-2, -1), keepdim=True) for extreme in (gray.amin, gray.amax))
    spread = (high - low).clamp_min(torch.finfo(gray.dtype).tiny)
    levels = ((gray - low) / spread * LEVELS).floor().clamp(0, LEVELS - 1)
    pixels = big_patches(levels, side).flatten(2)
    counts = [(pixels == level).to(gray.dtype).mean(-1) for level in range(LEVELS)]
    shares = torch.stack(counts, dim=-1)
    return -(shares * shares.clamp_min(torch.finfo(gray.dtype).tiny).log()).sum(-1)


def gradients(images: Tensor, side: int) -> Tensor:
    """Mean length of the Sobel gradient in each big patch: [batch, c, h, w] -> [batch, n]"""
    padded = F.pad(_gray(images), (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    horizontal = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    vertical = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return big_patches((horizontal.square() + vertical.square()).sqrt(), side).mean((2, 3, 4))


def _gray(images: Tensor) -> Tensor:
    wide = torch.promote_types(images.dtype, torch.float32)
    return images.detach().to(wide).mean(1, keepdim=True)


class FineChoice(nn.Module):
    """Which big patches are cut finely: scores [batch, n] -> numbers [batch, num_fine] and those of
    the others [batch, n - num_fine], each in order."""

    def __init__(self, config: MixedScaleVit) -> None:
        super().__init__()
        self.count, self.score = config.num_fine, config.score
        random = config.score == "random"
        limit = config.num_big if random else config.candidate_ratio * config.num_fine
        self.candidates = min(config.num_big, round(limit))
        self.prob = float(self.candidates > self.count > 0)  # it draws, as dropout does

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        order = scores.argsort(dim=1, descending=True, stable=True)
        if self.training and self.prob:
            best, rest = order.tensor_split((self.candidates,), dim=1)
            drawn = torch.rand(best.shape, device=best.device).argsort(dim=1)
            order = torch.cat([best.gather(1, drawn), rest], dim=1)
        fine, coarse = order.tensor_split((self.count,), dim=1)
        return fine.sort(dim=1).values, coarse.sort(dim=1).values


class MixedTokens(NamedTuple):
    """Tokens of an image, first the coarse ones, and where they come from."""

    tokens: Tensor
    """[batch, coarse + fine, embed_dim]"""
    coarse: Tensor
    """Numbers of the big patches that were shrunk, [batch, coarse]"""
    fine: Tensor
    """Numbers of the patches of full resolution, [batch, fine]"""


class MixedScaleEmbed(nn.Module):
    """images [batch, in_chans, height, width] -> `MixedTokens`"""

    def __init__(self, config: MixedScaleVit, **sizes: Any) -> None:
        super().__init__()
        patch, width = config.patch_size, config.embed_dim
        self.img_size, self.patch_size = (config.img_size,) * 2, (patch, patch)
        self.side, self.big_patch = patch * config.big_patch, config.big_patch
        self.fine_columns = config.img_size // patch
        self.num_patches = self.fine_columns**2
        self.choice, self._shrink = FineChoice(config), shrinking(self.side, patch)
        self.proj, self.norm = nn.Conv2d(config.in_chans, width, patch, patch), nn.Identity()

    def forward(self, images: Tensor) -> MixedTokens:
        fine, coarse = self.choice(self.scores(images))
        pixels, numbers = self.cut(images, fine, coarse)
        row = pixels.permute(0, 2, 3, 1, 4).flatten(3)  # patches beside each other: one image
        tokens = self.proj(row).flatten(2).transpose(1, 2)
        return MixedTokens(tokens, coarse, numbers)

    def scores(self, images: Tensor) -> Tensor:
        """Of the big patches of images [batch, c, h, w]; larger ones are cut: [batch, n]"""
        if self.choice.score == "random":  # evenly spread, unless the choice draws
            number = (self.fine_columns // self.big_patch) ** 2
            count = max(self.choice.count, 1)
            spread = (2 * torch.arange(count, device=images.device) + 1) * number // (2 * count)
            numbers = torch.arange(number, device=images.device)
            is_chosen = (numbers.unsqueeze(1) == spread).any(1)
            return is_chosen.float().expand(images.shape[0], -1)
        score = entropies if self.choice.score == "entropy" else gradients
        return score(images, self.side)

    def cut(self, images: Tensor, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of all tokens [batch, tokens, c, side, side], and the numbers of fine patches.

        images [batch, c, h, w], numbers of big patches fine [batch, k] and coarse [batch, n - k] ->
        numbers [batch, k * big_patch^2], of the pixels' blocks in the grid of patches.
        """
        big = big_patches(images, self.side)
        shrink = self._shrink.to(big)
        shrunk = shrink @ _taken(big, coarse) @ shrink.T
        inside = big_patches(_taken(big, fine).flatten(0, 1), self.patch_size[0])
        inside = inside.unflatten(0, fine.shape).flatten(1, 2)
        per_row, parts = self.fine_columns // self.big_patch, self.big_patch
        offsets = torch.arange(parts, device=fine.device)
        inner = (offsets.unsqueeze(1) * self.fine_columns + offsets).flatten()
        corner = (fine // per_row * self.fine_columns + fine % per_row) * parts
        numbers = corner.unsqueeze(-1) + inner
        return torch.cat([shrunk, inside], dim=1), numbers.flatten(1)


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
    """timm's, with tokens of two scales; there is no class of timm's for it.

    `pos_embed` is of the grid of patches; a big patch has the mean of its patches' positions.
    """

    def __init__(self, config: MixedScaleVit, num_outputs: int) -> None:
        embed = partial(MixedScaleEmbed, config)
        super().__init__(**config.arguments(), embed_layer=embed, num_classes=num_outputs)
        self.patch_embed.num_patches = config.num_tokens  # positions have been drawn
        self.scale_embed: nn.Parameter | None = None
        if config.scale_embedding:
            self.scale_embed = nn.Parameter(0.02 * torch.randn(1, 2, config.embed_dim))

    def _pos_embed(self, x: Any) -> Tensor:
        """`MixedTokens` with positions and scales, after the prefix: [batch, prefix + n, width]"""
        assert self.pos_embed is not None
        before = 0 if self.no_embed_class else self.num_prefix_tokens
        of_prefix, of_patches = self.pos_embed[0].tensor_split((before,))
        side, parts = self.patch_embed.fine_columns, self.patch_embed.big_patch
        grid = of_patches.unflatten(0, (side // parts, parts, side // parts, parts))
        of_big = grid.mean((1, 3)).flatten(0, 1)
        added = [of_big[x.coarse], of_patches[x.fine]]
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
    """A ViT with tokens of two scales: full resolution where an image has the most in it."""
    return MixedScaleVisionTransformer(config, num_outputs)
