"""Folders of timm's hub format -> a zoo: what `timm.create_model("local-dir:...")` loads."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import timm
from pydantic import Field
from torch import Size as Shape
from torch import Tensor, nn

from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import (
    ForeignJson,
    Number,
    Positive,
    Ratio,
    Size,
    check_arguments,
    read_object,
)
from vitarium.formats._hub_folder import CONFIG, config_keys, folder_weights, model_folders
from vitarium.formats._transformers.processor import RESAMPLE
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers._structure import features_of

_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""As timm looks for them."""
_WRAPPER = "timm_model."
"""Before every name in what transformers saves of timm's models."""
_DEFAULT_CLASSES = 1000
_BUILT_FROM = ("input_size", "fixed_input_size")


class TimmHubFolder(Config):
    """What the zoo calls what is imported."""

    stage: str = "imported"
    """Stage of the imported models in the zoo's tables."""


class _PretrainedCfg(ForeignJson):
    """Of the weights' description, what the model is built with, and how images are prepared."""

    input_size: Annotated[list[Size], Field(min_length=3, max_length=3)] | None = None
    fixed_input_size: bool | None = None
    num_classes: Annotated[int, Field(ge=0, le=2**20)] | None = None
    label_names: list[str] | None = None
    mean: list[Number] | None = None
    std: list[Positive] | None = None
    interpolation: str | None = None
    crop_pct: Ratio | None = None
    crop_mode: str | None = None


class _TimmConfig(ForeignJson):
    architecture: str
    num_classes: Annotated[int, Field(ge=0, le=2**20)] | None = None
    label_names: list[str] | None = None
    model_args: dict[str, Any] | None = None


def detects(source: Path) -> bool:
    return bool(_folders(source))


@importer("timm", detects=detects)
def timm_hub(config: TimmHubFolder, source: Path) -> Iterator[ForeignModel]:
    """Models of timm, in the layout of its hub: a model's folder, or a folder of such folders.

    config.json names the architecture, with classes and how images are prepared. Raises
    InvalidInput for an architecture or arguments that timm does not take.
    """
    for folder in _folders(source) or [f for f in model_folders(source) if f == source]:
        yield _model(folder, config.stage)


def _folders(source: Path) -> list[Path]:
    return [f for f in model_folders(source) if "architecture" in (config_keys(f) or ())]


def _model(folder: Path, stage: str) -> ForeignModel:
    file = folder / CONFIG
    values = read_object(file)
    # before timm 0.9 the weights' description was all of the file
    described = values.get("pretrained_cfg", {"label_names": values.get("labels"), **values})
    if not isinstance(described, dict):
        raise InvalidInput(f"{file}: pretrained_cfg: {described!r:.60} is not an object with keys")
    config, pretrained = _TimmConfig.parse(values, file), _PretrainedCfg.parse(described, file)
    architecture = _architecture(config, pretrained, file)
    num_classes = pretrained.num_classes if config.num_classes is None else config.num_classes
    num_classes = _DEFAULT_CLASSES if num_classes is None else num_classes
    labels = config.label_names or pretrained.label_names or []
    return ForeignModel(
        name=folder.resolve().name,
        stage=stage,
        epochs=[ForeignEpoch(0, {}, partial(_weights, folder), partial(_shapes, folder))],
        num_outputs=num_classes or features_of(architecture),
        architecture=architecture,
        head=None if num_classes else choose("head", "none"),
        settings=_preparation(pretrained, architecture.config.input_size, file),
        classes=tuple(labels) if num_classes else (),
        where=str(file),
    )


def _architecture(config: _TimmConfig, pretrained: _PretrainedCfg, file: Path) -> Section:
    """By its name and arguments alone, as no description of weights is kept with a model."""
    name = config.architecture.partition(".")[0]  # its tag is of the weights
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise InvalidInput(f"{file}: architecture: timm has no {name!r:.60}{hint}")
    arguments = {k: v for k, v in (config.model_args or {}).items() if v is not None}
    arguments.pop("num_classes", None)
    check_arguments(arguments, f"{file}: model_args")
    try:
        choose("architecture", "timm", model=name, **arguments)
        implied = _implied(name, arguments, pretrained)
        return choose("architecture", "timm", model=name, **arguments, **implied)
    except InvalidConfig as error:
        problems = "; ".join(map(str, error.problems))
        raise InvalidInput(f"{file}: model_args: {problems}") from None


def _implied(name: str, arguments: Mapping[str, Any], pretrained: _PretrainedCfg) -> dict[str, Any]:
    """Arguments that timm takes from the description of the weights, where its own differs."""
    described = pretrained.model_dump(include=set(_BUILT_FROM), exclude_none=True)
    with meta_device():
        plain: Any = timm.create_model(name, pretrained=False, **arguments)
        try:
            model: Any = timm.create_model(
                name, pretrained=False, pretrained_cfg=described, **arguments
            )
        except Exception as error:  # timm alone knows what its models take
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InvalidConfig([Problem((), f"timm cannot build {name} so: {reason}")]) from None
    return {
        key: value
        for key, value in _traits(model).items()
        if key not in arguments and value not in (None, _traits(plain)[key])
    }


def _traits(model: nn.Module) -> dict[str, Any]:
    patches: Any = getattr(model, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    return {
        "in_chans": getattr(getattr(patches, "proj", None), "in_channels", None),
        "img_size": tuple(size) if size else None,
    }


def _preparation(
    pretrained: _PretrainedCfg, input_size: tuple[int, int, int], file: Path
) -> dict[str, Any]:
    """Our settings where there is a word for it, else timm's: `preprocessing.NAME`."""
    settings: dict[str, Any] = {}
    if pretrained.mean and pretrained.std:
        for key in ("mean", "std"):
            values = getattr(pretrained, key)
            if len(values) not in (1, 3, input_size[0]):
                what = f"has {len(values)} numbers for images of {input_size[0]} channels"
                raise InvalidInput(f"{file}: pretrained_cfg.{key}: {what}")
            settings[f"data.{key}"] = [float(value) for value in values]
    if method := pretrained.interpolation:
        section = "augmentation" if method in RESAMPLE.values() else "preprocessing"
        settings[f"{section}.interpolation"] = method
    if pretrained.crop_pct:
        settings["preprocessing.crop_pct"] = float(pretrained.crop_pct)
    if pretrained.crop_mode not in (None, "center"):
        settings["preprocessing.crop_mode"] = pretrained.crop_mode
    if (size := pretrained.input_size) and size[1:] != list(input_size[1:]):
        settings["preprocessing.input_size"] = size
    return settings


def _shapes(folder: Path) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in _weights(folder, meta=True).items()}


def _weights(folder: Path, *, meta: bool = False) -> dict[str, Tensor]:
    weights = folder_weights(folder, _FILES, meta=meta)
    wrapped = all(name.startswith(_WRAPPER) for name in weights)
    return {name.removeprefix(_WRAPPER) if wrapped else name: t for name, t in weights.items()}
