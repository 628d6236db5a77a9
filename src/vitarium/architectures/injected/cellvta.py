"""CellVTA: ViT-Adapter with finer maps, on a ViT with layer scales that is frozen.

Two differences from the release: gamma starts at 0, not at the ViT's layer scale (1e-5), so that at
first nothing is injected (`gamma_init: 1e-5` is the release's); and the class token goes through
the blocks, where the release runs them without it and gives a constant one to its head. Without the
decoder of cells. The adaptation `injected` freezes the ViT.
"""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.injected._adapter_side import AdapterSide
from vitarium.architectures.injected._base import TINY, InjectedVisionTransformer
from vitarium.architectures.injected._declaration import InjectedDeclaration
from vitarium.architectures.injected.vit_adapter import ViTAdapter
from vitarium.architectures.vit.vit import TRAINING_FACTORS


class CellVTA(ViTAdapter):
    """CellVTA around a plain ViT with layer scales; by default as small as ViT-Ti.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    side_heads: PositiveInt = 8
    """Heads of the deformable attention."""
    side_ratio: float = Field(0.5, gt=0, le=1)
    """Width of the deformable attention's values, as a share of embed_dim."""
    stem_stride: Literal[1, 2, 4] = 2
    """Pixels between cells of the side network's first map; the maps that are injected are 2, 4
    and 8 times as coarse."""
    init_values: PositiveFloat = 1e-5
    """Initial value of the ViT's layer scales."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes."""
        return super().arguments() | {"init_values": self.init_values}


@architecture(
    "cellvta",
    paper="Zheng et al. 2025, github.com/JieZheng-ShanghaiTech/CellVTA",
    presets={
        "cellvta_large": {
            "read_maps": True,
            "embed_dim": 1024,
            "depth": 24,
            "num_heads": 16,
        }
    },
    symmetries=InjectedDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "gamma_init", "init_values"),
    tiny=TINY | {"read_maps": True, "side_ratio": 0.5, "init_values": 0.1},
)
def cellvta(config: CellVTA, num_outputs: int) -> nn.Module:
    """ViT-Adapter with maps twice as fine, for small structures, on a frozen ViT."""
    return InjectedVisionTransformer(config, AdapterSide, num_outputs)
