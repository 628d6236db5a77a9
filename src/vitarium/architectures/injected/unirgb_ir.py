"""UniRGB-IR: a second modality, fused with the first, is injected into a plain ViT as prompts.

Without the detection head. Left out are ViTDet's windows and relative positions, which the release
trains in its frozen ViT. The adaptation `injected` freezes the ViT.
"""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.injected._base import (
    TINY,
    InjectedVisionTransformer,
    InjectedVit,
    SideNetwork,
    SideSizes,
    State,
)
from vitarium.architectures.injected._declaration import InjectedDeclaration
from vitarium.architectures.injected._pyramid import Maps, Pyramid, Reading, stem
from vitarium.architectures.vit.vit import TRAINING_FACTORS

_KERNELS = (3, 3, 5, 7)
"""Of the groups of channels in which modalities are fused."""


class TwoModalities(SideSizes):
    """Settings of a side network that sees two modalities in the channels of an image."""

    second_modality_channels: PositiveInt = 3
    """Channels of the second modality, the last ones of each image."""


class UniRgbIr(InjectedVit, TwoModalities):
    """UniRGB-IR around a plain ViT, which sees the first modality alone; by default like ViT-Ti.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    in_chans: PositiveInt = 6
    """Channels of the input images, of both modalities."""
    side_ratio: float = Field(0.5, gt=0, le=1)
    """Width of the deformable attention's values, as a share of embed_dim."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes."""
        first = self.in_chans - self.second_modality_channels
        return super().arguments() | {"in_chans": first}

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.second_modality_channels >= self.in_chans:
            yield (
                f"second_modality_channels {self.second_modality_channels} leave nothing to the "
                f"first modality: in_chans {self.in_chans} are those of both"
            )
        if self.stem_width % len(_KERNELS):
            yield f"stem_width {self.stem_width} is not divisible by {len(_KERNELS)}, its groups"


class Fusion(nn.Module):
    """By pixel and channel a share a of the first modality and 1 - a of the second, after
    convolutions in groups of channels; a = sigmoid(1x1(first + second)), the same 1x1 for all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        group = width // len(_KERNELS)
        self.first, self.second = (
            nn.ModuleList(nn.Conv2d(group, group, k, padding=k // 2) for k in _KERNELS)
            for _ in range(2)
        )
        self.share = nn.Conv2d(group, group, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Both [batch, width, h, w] -> the same"""
        groups = len(_KERNELS)
        fused = []
        for number, (a, b) in enumerate(
            zip(first.chunk(groups, 1), second.chunk(groups, 1), strict=True)
        ):
            a, b = self.first[number](a), self.second[number](b)
            share = self.share(a + b).sigmoid()
            fused.append(share * a + (1 - share) * b)
        return torch.cat(fused, dim=1)


class ModalitySide(SideNetwork):
    """A pool of fused maps; what is injected is a prompt that is updated from stage to stage."""

    def __init__(self, config: TwoModalities, width: int, channels: int, drop_path: float) -> None:
        super().__init__()
        self.own = channels - config.second_modality_channels
        self.first = stem(self.own, config.stem_width, config.stem_stride)
        self.second = stem(config.second_modality_channels, config.stem_width, config.stem_stride)
        self.fusion = Fusion(config.stem_width)
        self.pyramid = Pyramid(config.stem_width, width)
        sizes = config.side_heads, config.side_points, config.side_ratio
        stages = range(config.interactions)
        self.readings = nn.ModuleList(Reading(width, 3, *sizes) for _ in stages)
        self.gamma = nn.Parameter(torch.full((len(stages), width), config.gamma_init))
        self.gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in stages[1:])

    def start(self, images: Tensor) -> State:
        """Of images [batch, channels, h, w]."""
        first, second = images[:, : self.own], images[:, self.own :]
        return State(self.pyramid(self.fusion(self.first(first), self.second(second))))

    def inject(self, stage: int, patches: Maps, state: State) -> tuple[Tensor, State]:
        """Patches [batch, n, width] + prompt; that is z * new + (1 - z) * last, z by channel."""
        read = self.readings[stage](patches.tokens, patches.centers, state.maps)
        prompt = self.gamma[stage] * read
        if state.prompt is not None:
            means = torch.cat([prompt.mean(1), state.prompt.mean(1)], dim=1)
            update = self.gates[stage - 1](means).sigmoid().unsqueeze(1)
            prompt = update * prompt + (1 - update) * state.prompt
        return patches.tokens + prompt, state._replace(prompt=prompt)


@architecture(
    "unirgb_ir",
    paper="Yuan et al. 2024, arXiv 2404.17360",
    presets={
        "unirgb_ir_base": {"embed_dim": 768, "num_heads": 12, "side_heads": 12},
    },
    symmetries=InjectedDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "gamma_init"),
    tiny=TINY | {"in_chans": 4, "second_modality_channels": 1},
)
def unirgb_ir(config: UniRgbIr, num_outputs: int) -> nn.Module:
    """A ViT into which a second modality, fused with its own, is injected as prompts."""
    return InjectedVisionTransformer(config, ModalitySide, num_outputs)
