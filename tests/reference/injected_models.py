"""Tiny models with a side network, whose injection is not zero."""

import torch

from vitarium import create_model
from vitarium.architectures.injected._base import TINY

SIZES = TINY | {"in_chans": 3}
NETWORKS = {
    "vit_adapter": {"read_maps": True},
    "vit_comer": {"read_maps": True},
    "cellvta": {"side_ratio": 0.5, "init_values": 0.1},
    "unirgb_ir": {"in_chans": 4, "second_modality_channels": 1},
}


def built(name, seed=0, **settings):
    torch.manual_seed(seed)
    return create_model(name, num_classes=3, **{**SIZES, **NETWORKS[name], **settings}).eval()


def images(model, count=2, size=16, dtype=torch.float32):
    channels = model.patch_embed.proj.in_channels
    if type(model.side).__name__ == "ModalitySide":
        channels += 1
    stream = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, size, size, generator=stream).to(dtype)


@torch.no_grad()
def scrambled(model, seed=5, scale=0.3):
    """Every parameter moved, so that nothing is zero."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=stream, dtype=torch.float64)
        parameter.add_(scale * drawn.to(parameter.dtype))
    return model
