"""DINOv2's vision transformer, and a head that sees the class token and the mean patch."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from timm.layers.mlp import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit, as_timm
from vitarium.core.errors import InvalidInput


class Dinov2(Vit):
    """DINOv2's ViT, with layer scale and patches of 14 pixels; by default as small as ViT-Ti."""

    patch_size: PositiveInt = 14
    """Height and width of a patch, in pixels."""
    img_size: PositiveInt = 518
    """Height and width of the input images, in pixels."""
    init_values: PositiveFloat = 1e-5
    """Initial value of the layer scales, the learned factors of each branch's channels."""
    swiglu: bool = False
    """Use gated MLPs (SwiGLU), as in the giant model; they are two thirds as wide as mlp_ratio
    says."""
    patch_mean: bool = True
    """Give the head the class token and the mean of the patches, twice as wide (linear evaluation,
    App. B.3); false: the class token alone."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.patch_mean and self.global_pool == "avg":
            yield (
                "patch_mean gives the head the class token, too, and global_pool 'avg' the mean of "
                "the patches alone; choose one of them"
            )
        if self.swiglu and self.act_layer != "gelu":
            yield f"act_layer '{self.act_layer}' is of plain MLPs; those of swiglu have SiLU"

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes and gated MLPs."""
        values = super().arguments() | {"init_values": self.init_values}
        if self.swiglu:
            hidden = int(int(self.embed_dim * self.mlp_ratio) * 2 / 3)
            # of one of the two halves; a multiple of eight, as the authors have it
            values["mlp_ratio"] = ratio(2 * ((hidden + 7) // 8 * 8), self.embed_dim)
        return values


def _as_timm(config: Dinov2) -> tuple[str, dict[str, Any]]:
    if config.patch_mean:
        raise InvalidInput("no head of timm sees the mean patch too, as its does (patch_mean)")
    _, arguments = as_timm(config)
    return f"vit_{'giant' if config.swiglu else 'small'}_patch14_dinov2", arguments


@architecture(
    "dinov2",
    paper="Oquab et al. 2023, arXiv 2304.07193",
    timm=_as_timm,
    symmetries=vit_symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values"),
    tiny={"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 0.1},
)
def dinov2(config: Dinov2, num_outputs: int) -> nn.Module:
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if config.swiglu else {}
    kind = ClassAndPatches if config.patch_mean else VisionTransformer
    return kind(**config.arguments() | gated, num_classes=num_outputs)


class ClassAndPatches(VisionTransformer):
    """Its head sees class token and mean patch, after the last norm: [batch, 2 * embed_dim]."""

    def __init__(self, *, num_classes: int, **settings: Any) -> None:
        super().__init__(**settings, num_classes=0)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 2 * self.embed_dim
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens [batch, 1 + patches, embed_dim] -> [batch, 2 * embed_dim]"""
        patches = x[:, self.num_prefix_tokens :]
        return torch.cat([x[:, 0], patches.mean(1)], dim=1)


def ratio(width: int, embed_dim: int) -> float:
    """An `mlp_ratio` from which timm computes exactly that width: int(embed_dim * ratio)."""
    share = width / embed_dim
    return share if int(embed_dim * share) == width else math.nextafter(share, math.inf)
