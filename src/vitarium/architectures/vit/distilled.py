"""DeiT's vision transformer with a distillation token beside the class token."""

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class DistilledVit(Vit):
    """DeiT's ViT with a distillation token; its head sees both tokens. By default DeiT-Ti/16."""

    reg_tokens: PositiveInt = 1
    """Number of register tokens, of which the first is the distillation token."""
    global_pool: Literal["token"] = "token"
    """Features that the head sees: both tokens, side by side."""


@architecture(
    "distilled_vit",
    paper="Touvron et al. 2021, arXiv 2012.12877",
    symmetries=vit_symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def distilled_vit(config: DistilledVit, num_outputs: int) -> nn.Module:
    return ClassAndDistillation(**config.arguments(), num_classes=num_outputs)


class ClassAndDistillation(VisionTransformer):
    """Its head sees class and distillation token, after the last norm: [batch, 2 * embed_dim]."""

    def __init__(self, *, num_classes: int, **settings: Any) -> None:
        super().__init__(**settings, num_classes=0)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 2 * self.embed_dim
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """Tokens [batch, prefix + patches, embed_dim] -> [batch, 2 * embed_dim]"""
        return torch.cat([x[:, 0], x[:, 1]], dim=1)
