"""Any vision transformer of timm by its name, with overrides."""

import inspect
from functools import lru_cache
from typing import Any, Self

import timm
import torch
from pydantic import ConfigDict, model_validator
from torch import nn

from vitarium.architectures.architecture import ArchitectureConfig
from vitarium.errors import did_you_mean
from vitarium.registry import architecture


class TimmModel(ArchitectureConfig):
    """A model of timm (`timm.list_models("*vit*")`), never with downloaded weights.

    Every parameter of the model's class can be overridden beside `model`: img_size, patch_size,
    in_chans, embed_dim, depth, num_heads, drop_path_rate, ...

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    model_config = ConfigDict(extra="allow")

    model: str
    """timm's name, e.g. vit_small_patch16_224."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters of the model's class that are set."""
        return {name: _hashable(value) for name, value in (self.model_extra or {}).items()}

    @property
    def input_size(self) -> tuple[int, int, int]:
        channels, height, width = _skeleton(self.model, tuple(self.overrides.items())).input_size
        return (channels, height, width)

    def __hash__(self) -> int:
        return hash((self.model, tuple(sorted(self.overrides.items()))))

    @model_validator(mode="after")
    def _builds(self) -> Self:
        """Build it without memory: timm alone knows what its models take."""
        if not timm.is_model(self.model):
            names = timm.list_models()
            raise ValueError(f"unknown timm model '{self.model}'{did_you_mean(self.model, names)}")
        known = _parameters(self.model)
        for name in self.overrides:
            if name not in known:
                raise ValueError(f"unknown factor '{name}'{did_you_mean(name, known)}")
        try:
            _skeleton(self.model, tuple(self.overrides.items()))
        except Exception as error:
            raise ValueError(f"timm cannot build {self.model} so: {error}") from None
        return self


@architecture(
    "timm", config=TimmModel, paper="Wightman 2019, github.com/huggingface/pytorch-image-models"
)
def timm_model(config: TimmModel, num_outputs: int) -> nn.Module:
    model: nn.Module = timm.create_model(
        config.model, pretrained=False, num_classes=num_outputs, **config.overrides
    )
    return model


class _Skeleton:
    """What a model says of itself when it is built without memory."""

    def __init__(self, name: str, overrides: dict[str, Any]) -> None:
        with torch.device("meta"):
            model: Any = timm.create_model(name, pretrained=False, **overrides)
        channels, height, width = model.pretrained_cfg["input_size"]
        size = overrides.get("img_size", (height, width))
        height, width = (size, size) if isinstance(size, int) else size
        self.input_size = (overrides.get("in_chans", channels), height, width)
        self.parameters = inspect.signature(type(model).__init__).parameters


@lru_cache(maxsize=256)
def _skeleton(name: str, overrides: tuple[tuple[str, Any], ...]) -> _Skeleton:
    return _Skeleton(name, dict(overrides))


def _parameters(name: str) -> list[str]:
    """What can be overridden: the parameters of the model's class, but the number of outputs."""
    not_factors = {"self", "num_classes", "device", "dtype", "kwargs"}
    return [key for key in _skeleton(name, ()).parameters if key not in not_factors]


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
