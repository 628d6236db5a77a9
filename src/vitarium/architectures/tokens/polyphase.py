"""Polyphase anchoring: a ViT whose output no circular shift of the image changes, trained or not.

Patches of a shifted image hold other pixels. Anchoring chooses one of the patch_size^2 grids on
which an image can be cut by the image itself, and so a shifted image is cut into the same patches,
in a circularly shifted order. All that follows has to be equivariant to circular shifts of the
grid: there is no table of positions, but a depthwise convolution with circular padding. Windows of
patches are no such thing, but anchored in the same way, of the grid of patches, they are.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import window_partition, window_reverse
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import NOTHING
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput


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
    window_size: PositiveInt | None = None
    """Height and width, in patches, of the windows inside of which blocks attend; it has to divide
    the grid of patches. None: all blocks attend globally. Class token and registers are in every
    window, and go on as the mean of what the windows make of them."""
    global_every: NonNegativeInt = 2
    """With windows, each so many-th block attends globally: every other one from the second (2, as
    in Twins), or none (0)."""

    @property
    def grid_side(self) -> int:
        """Rows and columns of the grid of patches."""
        return self.img_size // self.patch_size

    def block_layer(self) -> Callable[..., Block]:
        """What makes the blocks, called for one after the other."""
        if self.window_size is None:
            return Block
        numbers, windowed = count(1), partial(WindowBlock, self.grid_side, self.window_size)

        def next_block(**settings: Any) -> Block:
            number = next(numbers)
            is_global = self.global_every and number % self.global_every == 0
            return Block(**settings) if is_global else windowed(**settings)

        return next_block

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.window_size is None:
            if self.global_every != type(self).model_fields["global_every"].default:
                yield f"global_every {self.global_every} is of windows, and window_size is not set"
        elif self.grid_side % self.window_size:
            yield f"window_size {self.window_size} does not divide {self.grid_side} rows of patches"
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


class WindowBlock(Block):
    """timm's block with attention inside of anchored windows; prefix tokens are in each of them.

    tokens [batch, prefix + side * side, dim] -> the same; the patches stay in the order that they
    have in the anchored grid.
    """

    def __init__(self, side: int, window: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.side, self.window = side, (window, window)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Raises InvalidInput for masks of attention."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("attention in windows takes no masks: leave attn_mask, is_causal")
        x = self.anchored(x)
        x = x + self.drop_path1(self.ls1(self.attend(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def anchored(self, tokens: Tensor) -> Tensor:
        """Patches in an order by which a shifted grid is cut into the same windows."""
        prefix, patches = self._parted(tokens)
        maps = anchored(patches.movedim(-1, 1), self.window[0])
        return torch.cat([prefix, maps.flatten(2).transpose(1, 2)], dim=1)

    def attend(self, tokens: Tensor) -> Tensor:
        """The attention, of each window and the prefix."""
        prefix, patches = self._parted(tokens)
        windows = window_partition(patches.contiguous(), self.window).flatten(1, 2)
        number = (self.side // self.window[0]) ** 2
        copies = prefix.repeat_interleave(number, dim=0)
        attended: Tensor = self.attn(torch.cat([copies, windows], dim=1))
        of_prefix, of_windows = attended.tensor_split((prefix.shape[1],), dim=1)
        windows = of_windows.unflatten(1, self.window).contiguous()
        patches = window_reverse(windows, self.window, self.side, self.side).flatten(1, 2)
        return torch.cat([of_prefix.unflatten(0, (-1, number)).mean(1), patches], dim=1)

    def _parted(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Prefix [batch, prefix, dim], patches [batch, side, side, dim]"""
        before = tokens.shape[1] - self.side**2
        prefix, patches = tokens.tensor_split((before,), dim=1)
        return prefix, patches.unflatten(1, (self.side, self.side))


class PolyphaseVisionTransformer(VisionTransformer):
    """timm's with anchored patches; there is no class of timm's for it."""


class PolyphaseDeclaration(TokenizerDeclaration):
    mixes_stream = False

    def tokenizer(self, at: str, tokenizer: Any) -> None:
        super().tokenizer(at, tokenizer)
        self.linear(f"{at}.positions", self.written, NOTHING, tokenizer.positions)

    def block(self, at: str, block: Any) -> None:
        """See the base; windows change nothing of it."""
        if isinstance(block, WindowBlock):
            self.branches(at, block)
        else:
            super().block(at, block)


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
    block: Any = config.block_layer()
    return PolyphaseVisionTransformer(
        **config.arguments(),
        pos_embed="none",
        embed_layer=tokenizer,
        block_fn=block,
        num_classes=num_outputs,
    )
