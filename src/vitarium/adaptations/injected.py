"""A side network is injected into a trained ViT, and learns with the head."""

from typing import Any, Literal

from torch import nn

from vitarium.adaptations._extension import Extension, extend
from vitarium.adaptations._prompts import plain_vit
from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.architectures.injected._adapter_side import AdapterSide, ReadableSizes
from vitarium.architectures.injected._base import TINY, BuildSide, Injected, misfits
from vitarium.architectures.injected._pyramid import initialize
from vitarium.architectures.injected.unirgb_ir import ModalitySide, TwoModalities
from vitarium.architectures.injected.vit_comer import CoMerSide
from vitarium.core.errors import InvalidInput

_NETWORKS: dict[str, BuildSide] = {
    "vit_adapter": AdapterSide,
    "vit_comer": CoMerSide,
    "unirgb_ir": ModalitySide,
}
_SIDE = "side."


class InjectedSettings(ReadableSizes, TwoModalities):
    network: Literal["vit_adapter", "vit_comer", "unirgb_ir"] | None = "vit_adapter"
    """The side network, as of the architecture of that name; CellVTA's is vit_adapter with
    side_heads 8, side_ratio 0.5 and stem_stride 2. None: the one that the model already has."""
    backbone_learns: bool = False
    """The ViT learns, too; nothing else changes."""


class WithSide(Extension, Injected):
    """A ViT with a side network, at `side`."""


@adaptation(
    "injected",
    title="injected side network",
    paper="Chen et al. 2023, arXiv 2205.08534",
    adds_modules=True,
    frozen_in_eval_mode=True,
    training_factors=("gamma_init", "backbone_learns"),
    tiny={key: TINY[key] for key in ("interactions", "side_heads", "stem_width", "stem_stride")}
    | {"read_maps": True},
)
def injected(config: InjectedSettings, model: nn.Module) -> None:
    """A convolutional side network learns, whose maps are injected into a frozen ViT, and the head.

    At the start it injects nothing (`gamma_init: 0`). For `unirgb_ir` the last channels of the
    images are its second modality; the ViT goes on seeing all that it was built for. Settings of
    the others do not count, nor any beside `backbone_learns` where the model has a side network.
    Raises InvalidInput for a model that is no plain ViT, or whose sizes do not go with the network.
    """
    if config.network is None:
        if not isinstance(model, Injected):
            raise InvalidInput(
                f"adaptation 'injected': a {type(model).__name__} has no side network; name the "
                "`network` that it gets"
            )
    else:
        _add(config, model)
    train_only(model, lambda name: config.backbone_learns or name.startswith(_SIDE))


def _add(config: InjectedSettings, model: nn.Module) -> None:
    if isinstance(model, Injected):
        raise InvalidInput(
            "adaptation 'injected': the model already has a side network; choose `network: null`"
        )
    vit: Any = plain_vit(model, "injected")
    projection = getattr(vit.patch_embed, "proj", None)
    if not isinstance(projection, nn.Conv2d):
        raise InvalidInput(
            f"adaptation 'injected': a {type(model).__name__} has no patches that one convolution "
            "cuts out of the image; choose the architecture `vit` or `dinov2`"
        )
    channels = projection.in_channels
    faults = list(misfits(config, vit.embed_dim, len(vit.blocks)))
    if config.network == "unirgb_ir" and config.second_modality_channels >= channels:
        faults.append(
            f"second_modality_channels {config.second_modality_channels} leave nothing to the "
            f"first modality of {channels} channels"
        )
    if config.network == "vit_comer" and vit.embed_dim % 4:
        faults.append(f"the width {vit.embed_dim} is not divisible by 4")
    if faults:
        raise InvalidInput(f"adaptation 'injected': {'; '.join(faults)}")
    assert config.network is not None  # seen by the caller
    vit.side = _NETWORKS[config.network](config, vit.embed_dim, channels, 0.0)
    initialize(vit.side)
    vit.interactions = config.interactions
    extend(vit, WithSide)
