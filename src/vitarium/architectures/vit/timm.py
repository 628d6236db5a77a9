"""Any vision transformer of timm by its name, with overrides."""

import inspect
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from inspect import Parameter
from typing import Annotated, Any, NamedTuple, Self

import timm
import torch
from pydantic import AfterValidator, ConfigDict, PositiveFloat, model_validator
from torch import nn

from vitarium.architectures.base import ArchitectureConfig, architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.config import unknown_factor
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput, did_you_mean


def _plain(value: Any) -> Any:
    """Lists become tuples, so that a configuration with overrides stays frozen and hashable."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"{value!r} is neither a number, a text, true or false, nor a list")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return value


class TimmModel(ArchitectureConfig):
    """Any model of timm by its name (`timm.list_models("*vit*")`), without pre-trained weights.

    Every parameter of the model's class can be overridden beside `model`: img_size, patch_size,
    in_chans, embed_dim, depth, num_heads, drop_path_rate, ...; img_size, too, of a convolutional
    network, which is the same for images of any size.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(_plain)]]

    model: str
    """Model name in timm, e.g. vit_small_patch16_224."""

    layer_norm_eps: PositiveFloat | None = None
    """Epsilon of every LayerNorm, added to the variance; none: timm's default. ViTs of other
    libraries use other values."""

    fused: bool = False
    """The form for inference of models of which timm has one, as LeViT, RepViT and FastViT: batch
    norms, and branches beside convolutions, are parts of these. `batch_norm_folding` makes it of a
    trained model."""

    @property
    def fusible(self) -> bool:
        """Whether timm has another form of it for inference."""
        return _fusible(self.model, **self.overrides)

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters of the model's class that are set."""
        return dict(self.model_extra or {})

    @property
    def arguments(self) -> dict[str, Any]:
        """What timm builds it with: a network for images of any size is not told theirs."""
        skeleton = _skeleton(self.model, **self.overrides)
        dropped = {_SIZE} if skeleton.any_size else set()
        return {name: value for name, value in self.overrides.items() if name not in dropped}

    @property
    def input_size(self) -> tuple[int, int, int]:
        return _skeleton(self.model, **self.overrides).input_size

    def __hash__(self) -> int:
        settings = tuple(sorted(self.overrides.items()))
        return hash((self.model, self.layer_norm_eps, self.fused, settings))

    @model_validator(mode="after")
    def _builds(self) -> Self:
        """Build it without memory: timm alone knows what its models take."""
        if not timm.is_model(self.model):
            names = timm.list_models()
            raise ValueError(f"unknown timm model '{self.model}'{did_you_mean(self.model, names)}")
        parameters = _built(self.model).factors
        for name in self.overrides:
            if name not in parameters:
                raise ValueError(unknown_factor(name, parameters))
        _built(self.model, **self.overrides)
        if self.fused and not self.fusible:
            raise ValueError(f"timm has no batch norms to fuse in {self.model}; leave out fused")
        return self


def _as_timm(config: TimmModel) -> tuple[str, dict[str, Any]]:
    if (eps := config.layer_norm_eps) is not None:
        raise InvalidInput(
            f"its layer_norm_eps is {eps:g}, and timm's config.json has no key for it"
        )
    if config.fused:
        raise InvalidInput("it is fused, and timm's config.json has no key for it")
    return config.model, config.arguments


@architecture(
    "timm",
    paper="Wightman 2019, github.com/huggingface/pytorch-image-models",
    timm=_as_timm,
    symmetries=vit_symmetries,
    tiny={
        "model": "vit_tiny_patch16_224",
        "img_size": 32,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
    },
)
def timm_model(config: TimmModel, num_outputs: int) -> nn.Module:
    model: nn.Module = timm.create_model(
        config.model, pretrained=False, num_classes=num_outputs, **config.arguments
    )
    if config.layer_norm_eps is not None:
        for norm in model.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.eps = config.layer_norm_eps
    if config.fused:
        fuse_batch_norms(model)
    return model


def fuse_batch_norms(model: nn.Module) -> None:
    """Make batch norms, and branches beside convolutions, parts of these, in place.

    As `timm.models.reparameterize_model`, but for what the classifier is in, which other data
    replace. In eval mode it computes the same.
    """
    cfg: Any = model.pretrained_cfg
    classifiers = cfg["classifier"]
    _fuse_inside(model, "", (classifiers,) if isinstance(classifiers, str) else classifiers)
    model.requires_grad_(True)  # timm detaches what stays beside a fused layer


def _fuse_inside(module: nn.Module, at: str, classifiers: Sequence[str]) -> None:
    part: Any
    for name, part in list(module.named_children()):
        path = f"{at}{name}."
        if not any(f"{classifier}.".startswith(path) for classifier in classifiers):
            if hasattr(part, "fuse"):
                part = part.fuse()
                setattr(module, name, part)
            elif hasattr(part, "reparameterize"):
                part.reparameterize()
        _fuse_inside(part, path, classifiers)


@lru_cache(maxsize=256, typed=True)
def _fusible(name: str, /, **overrides: Any) -> bool:
    skeleton = _skeleton(name, **overrides)
    with meta_device():
        arguments = {k: v for k, v in overrides.items() if not (skeleton.any_size and k == _SIZE)}
        model = timm.create_model(name, pretrained=False, **arguments)
        names = model.state_dict().keys()
        fuse_batch_norms(model)
    return names != model.state_dict().keys()


_SIZE = "img_size"


class _Skeleton(NamedTuple):
    """What a model says of itself when it is built without memory."""

    input_size: tuple[int, int, int]
    factors: list[str]
    """What can be overridden."""
    any_size: bool
    """Whether its class takes no img_size, since images may have any."""


# Typed: else 2.0 and True would be found under 2, and pass where timm refuses them.
@lru_cache(maxsize=256, typed=True)
def _skeleton(name: str, /, **overrides: Any) -> _Skeleton:
    """Raises what timm does; of a model for images of any size also where these are too small."""
    size = overrides.get(_SIZE)
    any_size = size is not None and _skeleton(name).any_size
    with meta_device():
        arguments = {k: v for k, v in overrides.items() if not (any_size and k == _SIZE)}
        model: Any = timm.create_model(name, pretrained=False, **arguments)
    channels, height, width = model.pretrained_cfg["input_size"]
    height, width = (size, size) if isinstance(size, int) else size or (height, width)
    input_size = (overrides.get("in_chans", channels), height, width)
    factors = list(dict.fromkeys(_factors(type(model))))
    if any_size:
        with torch.device("meta"), torch.no_grad():
            model.eval()(torch.empty(1, *input_size))
    takes_any = _SIZE not in factors and not model.pretrained_cfg.get("fixed_input_size")
    return _Skeleton(input_size, [*factors, *[_SIZE] * takes_any], takes_any)


def _factors(model_class: type) -> Iterator[str]:
    """Parameters of a class, and of those that it hands on the rest to."""
    not_factors = {"self", "num_classes", "device", "dtype"}
    for base in model_class.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        kinds = {parameter.name: parameter.kind for parameter in parameters}
        rest = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        yield from (n for n, kind in kinds.items() if kind not in rest and n not in not_factors)
        if Parameter.VAR_KEYWORD not in kinds.values():
            return


def _built(name: str, /, **overrides: Any) -> _Skeleton:
    """The skeleton. Raises ValueError with the first line of whatever timm says against it."""
    try:
        return _skeleton(name, **overrides)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"timm cannot build {name} so: {reason}") from None
