"""Shifted patch tokenization and locality self-attention, for training on small data sets."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.attention._small_data import small_data_presets
from vitarium.architectures.base import architecture
from vitarium.architectures.patch_tokens import patch_pixels
from vitarium.architectures.symmetries.base import Axis
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput


class SptLsaVit(Vit):
    """A ViT for small data sets: patches see their surroundings, and tokens do not see themselves.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    shifted_patches: bool = True
    """Shifted patch tokenization: cut patches from the image and four copies of it that are shifted
    by half a patch diagonally (Sec. 3.1); false: from the image alone."""
    locality_attention: bool = True
    """Locality self-attention: no token attends to itself, and the temperature of each head is
    learned (Sec. 3.2); false: plain attention."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.shifted_patches and self.patch_size < 2:
            yield "patches of one pixel have no half to be shifted by; set shifted_patches to false"


class ShiftedPatchEmbed(nn.Module):
    """Tokens of patches of the image and its four shifted copies, normalized before projection.

    images [batch, in_chans, height, width] -> [batch, patches, embed_dim]. The copies are shifted
    by half a patch (rounded down) towards each corner, with zeros where nothing is left, and stand
    after the image as further channels. A patch's numbers are in the order row, column, channel.
    """

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, norm_eps: float
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size, self.num_patches = (side, side), side * side
        self.shift = patch_size // 2
        pixels = 5 * in_chans * patch_size**2
        self.pixel_norm = LayerNorm(pixels, eps=norm_eps)
        self.proj = nn.Linear(pixels, embed_dim)
        self.norm = nn.Identity()  # of tokens, as timm's has one

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) != self.img_size:
            sizes = ("x".join(map(str, size)) for size in (images.shape[-2:], self.img_size))
            raise InvalidInput("images of {} pixels for a model of {}".format(*sizes))
        tokens: Tensor = self.proj(
            self.pixel_norm(patch_pixels(self.shifted(images), self.patch_size))
        )
        return tokens

    def shifted(self, images: Tensor) -> Tensor:
        """[batch, in_chans, height, width] -> [batch, 5 * in_chans, height, width]"""
        height, width = images.shape[-2:]
        padded = F.pad(images, (self.shift,) * 4)
        ends = (0, 2 * self.shift)
        copies = [padded[..., y : y + height, x : x + width] for y in ends for x in ends]
        return torch.cat([images, *copies], dim=1)

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in an image of that height and width."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]


class HeadTemperature(nn.Module):
    """Queries times their head's learned temperature: [batch, heads, n, head_dim] -> the same.

    Attention by itself multiplies logits by head_dim^-0.5, which the temperature starts at and
    takes the place of.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.unscaled = math.sqrt(head_dim)
        self.temperature = nn.Parameter(torch.full((num_heads,), head_dim**-0.5))

    def forward(self, queries: Tensor) -> Tensor:
        factor = self.temperature * self.unscaled
        return (queries * factor.view(-1, 1, 1)).to(queries.dtype)


class LocalityAttention(Attention):
    """Attention to all tokens but oneself, with learned temperatures: [batch, n, width].

    A token that is the only one attends to itself. Raises InvalidInput for a mask of others.
    """

    def __init__(self, dim: int, num_heads: int, **settings: Any) -> None:
        super().__init__(dim, num_heads, **settings)
        self.q_norm = HeadTemperature(num_heads, self.head_dim)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        if attn_mask is not None or is_causal:
            raise InvalidInput("locality self-attention has a mask of its own, and takes no other")
        count = x.shape[1]
        sees = ~torch.eye(count, dtype=torch.bool, device=x.device) if count > 1 else None
        attended: Tensor = super().forward(x, attn_mask=sees)
        return attended


class SmallDataTransformer(VisionTransformer):
    """A class of its own, since not every shortcut through timm's holds for it."""


class SmallDataDeclaration(VitDeclaration):
    """The symmetries of `spt_lsa`: pixels stay where they are, temperatures go with their heads."""

    def embedding(self) -> None:
        """Of shifted patches, or the plain ones."""
        embedding: Any = self.model.patch_embed
        if not isinstance(embedding, ShiftedPatchEmbed):
            super().embedding()
            return
        for name, tensor in embedding.pixel_norm.state_dict().items():
            self.piece(f"patch_embed.pixel_norm.{name}", tensor.shape, (NOTHING,))
        self.linear("patch_embed.proj", self.written, NOTHING, embedding.proj)
        self.tokens()

    def attention(self, at: str, attention: Any) -> Readers:
        """Locality self-attention, or the plain one."""
        if not isinstance(attention, LocalityAttention):
            return super().attention(at, attention)
        self.heads_of(at, attention, normed=False)
        heads = (Axis(f"{at}.heads"),)
        self.piece(f"{at}.q_norm.temperature", (attention.num_heads,), heads)
        return [(f"{at}.qkv", attention.qkv)]


@architecture(
    "spt_lsa",
    paper="Lee et al. 2021, arXiv 2112.13492",
    presets=small_data_presets("sl_vit"),
    symmetries=SmallDataDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def spt_lsa(config: SptLsaVit, num_outputs: int) -> nn.Module:
    attention = LocalityAttention if config.locality_attention else Attention
    model = SmallDataTransformer(
        **config.arguments(), attn_layer=attention, num_classes=num_outputs
    )
    if config.shifted_patches:
        sizes = (config.img_size, config.patch_size, config.in_chans, config.embed_dim)
        model.patch_embed = ShiftedPatchEmbed(*sizes, norm_eps=config.norm_eps)
        model.patch_embed.apply(init_weights_vit_timm)
    return model
