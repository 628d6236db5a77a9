"""A file of weights, or a folder of such, without a table: shapes tell the architecture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.weight_suffixes import INDEX, weight_suffix
from vitarium.formats._state_dict import NoStateDict
from vitarium.formats._weight_checks import built_shapes, misfit
from vitarium.formats._weight_files import find_weight_files
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers._structure import (
    ModelSettings,
    Shapes,
    Structure,
    built_structure,
    last_height,
    weight_readers,
    with_name,
)
from vitarium.formats.importers._vit_shapes import (
    AmbiguousShapes,
    image_settings,
    infer_head,
    infer_vit,
)
from vitarium.formats.weights import StateDict, read_state_dict_shapes, root_of

TENSORS_ALONE = "none"


def _how_to_name_it() -> str:
    return (
        f"name it, {parameter('architecture', 'NAME')} (a model of timm, or one of `vitarium "
        "plugins architectures`), import the tensors alone, "
        f"{parameter('architecture', TENSORS_ALONE)}, or write a table (docs/import.md)"
    )


class WeightFiles(ModelSettings):
    """What the files hold; `architecture` is inferred where it is not named, or in part:
    `architecture.num_heads` alone adds what shapes do not tell. `none` keeps the tensors alone."""

    stage: str = "imported"
    """Stage of the imported models in the zoo's tables."""


def is_weight_files(source: Path) -> bool:
    """Whether it is a file that is called as weights are, or a folder with one, not a zoo."""
    try:
        if source.is_dir():
            return not (source / "zoo.json").exists() and bool(find_weight_files(source)[0])
        is_weights = bool(weight_suffix(source.name)) or source.name.endswith(INDEX)
        return is_weights and source.is_file()
    except OSError:
        return False


@importer("weight_files", detects=is_weight_files, fallback=True)
def weight_files(config: WeightFiles, source: Path) -> Iterator[ForeignModel]:
    """A file of weights, or a folder of them; a ViT's architecture is inferred from its tensors."""
    if not source.is_dir():
        yield _model(source.name.removesuffix(weight_suffix(source.name)), source, config)
        return
    paths, left_out = find_weight_files(source)
    for name, path in paths.items():
        try:
            yield _model(name, path, config, source)
        except NoStateDict as error:  # an optimizer's state beside the weights
            left_out[name] = str(error)
    for name, reason in left_out.items():
        yield ForeignModel(name, config.stage, [], 0, notes=(f"left out: {reason}",))


def _model(name: str, path: Path, config: WeightFiles, folder: Path | None = None) -> ForeignModel:
    root = root_of(folder or path.parent)
    read = read_state_dict_shapes(path, root, config)
    structure, notes = _structure(path, read, config)
    return ForeignModel(
        name=name,
        stage=config.stage,
        epochs=[ForeignEpoch(0, {}, *weight_readers(path, root, config))],
        num_outputs=structure.num_outputs,
        architecture=structure.architecture,
        head=structure.head,
        where="" if folder is None else path.relative_to(folder).as_posix(),
        notes=(*notes, *read.notes),
    )


def _structure(
    path: Path, read: StateDict[torch.Size], config: WeightFiles
) -> tuple[Structure, list[str]]:
    """What builds the file's model, and notes on how that is known. Raises InvalidInput."""
    shapes = read.values
    if config.architecture == TENSORS_ALONE:
        outputs = last_height(shapes) if config.num_classes is None else config.num_classes
        return Structure(None, None, outputs), []
    values = with_name(config.architecture or {})
    if "name" in values:
        return built_structure(values, None, shapes, config.num_classes), []
    if structure := _named_in_file(read, values, config.num_classes):
        return structure, [f"architecture {read.architecture}, as the file says"]
    try:
        inferred, assumptions = infer_vit(shapes, values)
        head, outputs = infer_head(shapes)
        structure = built_structure(inferred, head, shapes, outputs)
        if reason := _misfit(structure, shapes):
            raise InvalidInput(reason)
    except InvalidInput as error:
        why = f"its architecture cannot be inferred: {'; '.join(str(error).splitlines())}"
        how = "" if isinstance(error, AmbiguousShapes) else f"; {_how_to_name_it()}"
        raise InvalidInput(f"{path}: {why}{how}") from None
    settings = {key: value for key, value in inferred.items() if key not in ("name", "model")}
    listed = "".join(f" {key}={value}" for key, value in settings.items())
    name = inferred.get("model", inferred["name"])
    what = f"architecture inferred from names and shapes: {name}{listed}, {outputs} outputs"
    return structure, [f"{what}; assumed, as weights do not tell: {', '.join(assumptions)}"]


def _named_in_file(
    read: StateDict[torch.Size], settings: Mapping[str, Any], num_classes: int | None
) -> Structure | None:
    """Of a model of timm that the file names and its weights fit, for images of any size."""
    if not read.architecture or not timm.is_model(read.architecture):
        return None
    for images in ({}, *image_settings(read.values)):
        values = {"name": "timm", "model": read.architecture, **images, **settings}
        try:
            structure = built_structure(values, None, read.values, num_classes)
        except InvalidInput:
            continue
        if not _misfit(structure, read.values):
            return structure
    return None


def _misfit(structure: Structure, shapes: Shapes) -> str | None:
    architecture, head, num_outputs = structure
    assert architecture
    return misfit(shapes, built_shapes(architecture, head, num_outputs))
