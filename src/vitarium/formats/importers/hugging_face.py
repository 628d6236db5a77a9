"""Folders of Hugging Face's transformers with a vision model in them -> a zoo."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from torch import Size, Tensor

from vitarium.core.config import Config, InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.formats._hub_folder import CONFIG, config_keys, folder_weights, model_folders
from vitarium.formats._names import to_timm
from vitarium.formats._transformers.base import Family
from vitarium.formats._transformers.families import FAMILIES, architecture_name, family_of
from vitarium.formats._transformers.processor import preparation
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers._structure import features_of

_KEY, _TIMM_KEY = "architectures", "architecture"


class HuggingFaceFolder(Config):
    """What the zoo calls what is imported."""

    stage: str = "imported"
    """Stage of the imported models in the zoo's tables."""


def detects(source: Path) -> bool:
    return bool(_folders(source))


@importer("hugging_face", detects=detects)
def hugging_face(config: HuggingFaceFolder, source: Path) -> Iterator[ForeignModel]:
    """Hugging Face transformers models (ViT, DeiT, DINOv2, BEiT, Swin, ...): a folder, or several.

    Outputs are those of transformers' classifier; a bare model becomes one without a head, whose
    output is what transformers pools. Raises InvalidInput for a model that has no counterpart in
    timm, and for a file that makes no sense.
    """
    folders = _folders(source) or [folder for folder in model_folders(source) if folder == source]
    names = {folder: architecture_name(folder / CONFIG) for folder in folders}
    importable = [folder for folder in folders if names[folder] in FAMILIES]
    left_out = tuple(
        f"left out: {folder.name} is a {name}, which cannot be imported"
        for folder, name in names.items()
        if folder not in importable
    )
    if not importable:
        for folder, name in names.items():
            family_of(name, folder / CONFIG)
        return
    for number, folder in enumerate(importable):
        model = _model(folder, names[folder], config.stage)
        yield replace(model, notes=left_out) if number == 0 else model


def _folders(source: Path) -> list[Path]:
    """Those with a config.json of transformers (timm's has an `architecture`), or a broken one."""
    keys = {folder: config_keys(folder) for folder in model_folders(source)}
    return [
        folder
        for folder, names in keys.items()
        if (folder == source if names is None else _KEY in names and _TIMM_KEY not in names)
    ]


def _model(folder: Path, name: str, stage: str) -> ForeignModel:
    file = folder / CONFIG
    family = family_of(name, file)
    config = family.config.read(file)
    try:
        architecture = family.section(config, not family.has_classifier)
    except InvalidInput as error:
        if isinstance(error, InvalidConfig):
            error = InvalidInput("; ".join(map(str, error.problems)))
        raise InvalidInput(f"{file}: {error}") from None
    outputs, classes = family.outputs(config)
    channels, height, _ = architecture.config.input_size
    return ForeignModel(
        name=folder.resolve().name,
        stage=stage,
        epochs=[ForeignEpoch(0, {}, *_readers(folder, family))],
        num_outputs=outputs or features_of(architecture),
        architecture=architecture,
        head=None if outputs else choose("head", "none"),
        settings=preparation(folder / "preprocessor_config.json", channels, height),
        classes=classes,
        where=str(file),
    )


def _readers(
    folder: Path, family: Family
) -> tuple[Callable[[], dict[str, Tensor]], Callable[[], dict[str, Size]]]:
    """`load` and `shapes` of the folder's weights under timm's names."""

    def load(*, meta: bool = False) -> dict[str, Tensor]:
        return family.convert(to_timm(folder_weights(folder, meta=meta)))

    return load, lambda: {name: tensor.shape for name, tensor in load(meta=True).items()}
