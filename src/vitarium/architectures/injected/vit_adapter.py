"""ViT-Adapter: a convolutional pyramid injects into a plain ViT, and reads of it.

Without the detection head. The released backbone has no class token; here class token and registers
go through the blocks, and patches alone are injected into. Maps keep their own rows and columns, so
images need not be multiples of 32 pixels.
"""

from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.injected._adapter_side import PUBLISHED, AdapterSide, ReadableSizes
from vitarium.architectures.injected._base import (
    TINY,
    InjectedVisionTransformer,
    InjectedVit,
)
from vitarium.architectures.injected._declaration import InjectedDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS


class ViTAdapter(InjectedVit, ReadableSizes):
    """ViT-Adapter around a plain ViT; by default as small as ViT-Ti.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """


@architecture(
    "vit_adapter",
    paper="Chen et al. 2023, arXiv 2205.08534",
    presets={
        f"vit_adapter_{size}": {"read_maps": True, **settings}
        for size, settings in PUBLISHED.items()
    },
    symmetries=InjectedDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "gamma_init"),
    tiny=TINY | {"read_maps": True},
)
def vit_adapter(config: ViTAdapter, num_outputs: int) -> nn.Module:
    """A ViT into which maps of a convolutional pyramid are injected, and which they read."""
    return InjectedVisionTransformer(config, AdapterSide, num_outputs)
