"""Polyphase anchoring: a ViT whose output no circular shift of the image changes, trained or not.

Patches of a shifted image hold other pixels. Anchoring chooses one of the patch_size^2 grids on
which an image can be cut by the image itself, and so a shifted image is cut into the same patches,
in a circularly shifted order. All that follows has to be equivariant to circular shifts of the
grid: there is no table of positions, but a depthwise convolution with circular padding.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import NOTHING
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class PolyphaseVit(Vit):
    """A ViT that is exactly invariant to circular shifts of images; by default ViT-Ti/16.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    global_pool: Literal["token", "avg"] = "avg"
    """Features that the head sees: the class token (token), or the mean of the patches (avg); both
    are invariant."""
    class_token: bool = False
    """Put a learned class token before the patches."""
    anchor_patch: bool = False
    """Shift the image further, so that the patch with the largest norm comes first: outputs of
    shifted images are then the same bit by bit, and without it up to the order of sums."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.no_embed_class:
            yield "no_embed_class: polyphase has no position embeddings; leave it out"


def anchored(images: Tensor, stride: int, *, first_patch: bool = False) -> Tensor:
    """Circularly shifted images [batch, c, h, w], whose polyphase component (0, 0) is the largest.

    Component (i, j) is images[:, :, i::stride, j::stride], with i, j < stride; its size is its L2
    norm, and of equal ones the first counts. The stride has to divide h and w.

    Args:
        first_patch: then shift by multiples of the stride, too, until the patch of stride x stride
            pixels at (0, 0) is the largest.
    """
    energy = images.detach().double().square().sum(1)  # exact but for the order of sums
    batch, height, width = energy.shape
    cells = energy.reshape(batch, height // stride, stride, width // stride, stride)
    phase = cells.sum((1, 3)).flatten(1).argmax(1)
    images = rolled(images, phase // stride, phase % stride)
    if not first_patch:
        return images
    energy = rolled(energy.unsqueeze(1), phase // stride, phase % stride).squeeze(1)
    patches = energy.reshape(cells.shape).sum((2, 4))
    first, columns = patches.flatten(1).argmax(1), width // stride
    return rolled(images, first // columns * stride, first % columns * stride)


def rolled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Each image circularly shifted, so that its pixel (rows, columns) comes to (0, 0).

    images [batch, c, h, w], rows and columns int64 [batch] -> [batch, c, h, w]
    """
    for dim, shift in ((2, rows), (3, columns)):
        size = images.shape[dim]
        index = (torch.arange(size, device=images.device) + shift.unsqueeze(1)) % size
        shape = (-1, 1, size, 1) if dim == 2 else (-1, 1, 1, size)
        images = images.gather(dim, index.view(shape).expand(images.shape))
    return images


def circularly_padded(maps: Tensor) -> Tensor:
    """Borders joined: [batch, c, h, w] -> [batch, c, h + 2, w + 2]"""
    maps = torch.cat([maps[..., -1:, :], maps, maps[..., :1, :]], dim=-2)
    return torch.cat([maps[..., -1:], maps, maps[..., :1]], dim=-1)


class AnchoredPatchEmbed(PatchEmbed):
    """images [batch, in_chans, height, width] -> patches [batch, n, embed_dim]

    They are in the order that they have in the anchored image.
    """

    def __init__(self, first_patch: bool, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.first_patch = first_patch
        width = sizes["embed_dim"]
        self.positions = nn.Conv2d(width, width, 3, groups=width)

    def forward(self, images: Tensor) -> Tensor:
        images = anchored(images, self.patch_size[0], first_patch=self.first_patch)
        patches = self.proj(images)
        patches = patches + self.positions(circularly_padded(patches))
        return patches.flatten(2).transpose(1, 2)


class PolyphaseVisionTransformer(VisionTransformer):
    """timm's with anchored patches; there is no class of timm's for it."""


class PolyphaseDeclaration(TokenizerDeclaration):
    mixes_stream = False

    def tokenizer(self, at: str, tokenizer: Any) -> None:
        super().tokenizer(at, tokenizer)
        self.linear(f"{at}.positions", self.written, NOTHING, tokenizer.positions)


@architecture(
    "polyphase",
    paper="Ding et al. 2023, arXiv 2306.07470",
    symmetries=PolyphaseDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def polyphase(config: PolyphaseVit, num_outputs: int) -> nn.Module:
    """A ViT on anchored patches: no circular shift of an image changes its outputs."""
    tokenizer = partial(AnchoredPatchEmbed, config.anchor_patch)
    return PolyphaseVisionTransformer(
        **config.arguments(),
        pos_embed="none",
        embed_layer=tokenizer,
        num_classes=num_outputs,
    )
