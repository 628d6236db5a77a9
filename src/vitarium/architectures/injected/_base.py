"""What architectures with an injected side network have in common: settings, the model, its order.

tokens --inject--> blocks of stage 1 --inject--> blocks of stage 2 ... --> norm --> head
           ^             | extract     ^
image -> maps ---------> maps --------> ...                       mean of the maps, if read
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.injected._pyramid import Maps, initialize
from vitarium.architectures.vit.vit import Vit
from vitarium.core.config import Config

TINY: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2}
TINY |= {"num_heads": 2, "interactions": 2, "side_heads": 2, "stem_width": 4, "stem_stride": 1}
"""For the contract tests."""


class SideSizes(Config):
    """Settings of every side network."""

    interactions: PositiveInt = 4
    """Stages into which the blocks are cut evenly; before each the side network injects into the
    patches."""
    side_heads: PositiveInt = 6
    """Heads of the deformable attention."""
    side_points: PositiveInt = 4
    """Points that each head reads of each map."""
    side_ratio: float = Field(1.0, gt=0, le=1)
    """Width of the deformable attention's values, as a share of embed_dim."""
    stem_width: PositiveInt = 64
    """Channels of the side network's first map; the next have 2, 4 and 4 times as many."""
    stem_stride: Literal[1, 2, 4] = 4
    """Pixels between cells of the side network's first map; the maps that are injected are 2, 4
    and 8 times as coarse. Small images need a small one."""
    gamma_init: float = 0.0
    """Initial value of the factors by which channels are injected; 0: at the start nothing is."""


def misfits(sizes: SideSizes, embed_dim: int, depth: int) -> Iterator[str]:
    """What of a side network does not go with a ViT of that width and depth."""
    if depth % sizes.interactions:
        yield f"depth {depth} is not divisible by interactions {sizes.interactions}"
    inner = embed_dim * sizes.side_ratio
    if inner % sizes.side_heads:
        yield (
            f"embed_dim {embed_dim} times side_ratio {sizes.side_ratio:g} is not divisible by "
            f"side_heads {sizes.side_heads}"
        )


class InjectedVit(Vit, SideSizes):
    """A plain ViT with a side network that injects convolutional maps between its blocks.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        yield from misfits(self, self.embed_dim, self.depth)


class State(NamedTuple):
    """What a side network hands from stage to stage."""

    maps: Maps
    fine: Tensor | None = None
    """A finer map, [batch, width, h, w]."""
    patches: tuple[Tensor, ...] = ()
    """Of the ViT after each stage, [batch, width, rows, columns], where the maps are read."""
    prompt: Tensor | None = None
    """What was injected last, [batch, n, width]."""


class SideNetwork(nn.Module):
    """What is injected and what is extracted. Patches are Maps of one map, the ViT's grid."""

    reads_maps = False
    """Whether the mean of the maps is part of the features."""
    adds_patches = False
    """Whether the ViT's patches are added to the maps: then both have the same channels."""

    def start(self, images: Tensor) -> State:
        """Of images [batch, channels, h, w]."""
        raise NotImplementedError

    def inject(self, stage: int, patches: Maps, state: State) -> tuple[Tensor, State]:
        """Before the blocks of a stage, from 0: the patches [batch, n, width] that go on."""
        raise NotImplementedError

    def extract(self, stage: int, patches: Maps, state: State) -> State:
        """After the blocks of a stage."""
        return state

    def read(self, state: State) -> Tensor:
        """What is added to the features, [batch, width], where `reads_maps`."""
        raise NotImplementedError


BuildSide = Callable[[Any, int, int, float], SideNetwork]
"""`(settings, embed_dim, channels of the images, drop_path_rate) -> SideNetwork`"""


class Injected:
    """Mixed into a timm VisionTransformer: its forward pass with a side network at `side`.

    Class token and registers go through the blocks as ever, and patches alone are injected into.
    Where the injection and what is read of the maps are zero, all of it is the plain ViT's, bit by
    bit.
    """

    side: SideNetwork
    interactions: int

    def forward_features(
        self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """images [batch, channels, h, w] -> tokens [batch, prefix + patches, width]"""
        masks = {"attn_mask": attn_mask, "is_causal": is_causal}
        masked = attn_mask is not None or is_causal
        state: State = self.side.start(x)
        seen_by_vit = x[:, : self.patch_embed.proj.in_channels]
        tokens = self._pos_embed(self.patch_embed(seen_by_vit))
        tokens = self.norm_pre(self.patch_drop(tokens))
        grid, prefix = self.patch_embed.grid_size, self.num_prefix_tokens
        blocks, size = list(self.blocks), len(self.blocks) // self.interactions
        for stage in range(self.interactions):
            patches = Maps(tokens[:, prefix:], (grid,))
            injected, state = self.side.inject(stage, patches, state)
            injected = injected.to(tokens.dtype)
            tokens = torch.cat([tokens[:, :prefix], injected], dim=1) if prefix else injected
            for block in blocks[stage * size : (stage + 1) * size]:
                tokens = block(tokens, **masks) if masked else block(tokens)
            patches = Maps(tokens[:, prefix:], (grid,))
            state = self.side.extract(stage, patches, state)
        tokens = self.norm(tokens)
        if self.side.reads_maps:
            tokens = tokens + self.side.read(state).unsqueeze(1).to(tokens.dtype)
        return tokens

    def forward_intermediates(self, *arguments: Any, **settings: Any) -> Any:
        """Raises NotImplementedError: timm's would leave the side network out."""
        raise NotImplementedError("take the outputs of the blocks by hooks")


class InjectedVisionTransformer(Injected, VisionTransformer):
    """A ViT with a side network, drawn after the ViT."""

    def __init__(self, config: InjectedVit, build: BuildSide, num_outputs: int) -> None:
        super().__init__(**config.arguments(), num_classes=num_outputs)
        self.interactions = config.interactions
        self.side = build(config, config.embed_dim, config.in_chans, config.drop_path_rate)
        initialize(self.side)
