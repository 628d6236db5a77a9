"""A file of weights, or a folder of such, without a table: shapes tell the architecture."""

from collections.abc import Iterator
from pathlib import Path

import torch

from vitarium.core.errors import InvalidInput
from vitarium.core.weight_suffixes import INDEX, weight_suffix
from vitarium.formats._state_dict import NoStateDict
from vitarium.formats._weight_files import find_weight_files
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers._inferred import (
    TENSORS_ALONE,
    inferred_structure,
    tensors_alone,
)
from vitarium.formats.importers._structure import (
    ModelSettings,
    Structure,
    built_structure,
    weight_readers,
    with_name,
)
from vitarium.formats.weights import StateDict, read_state_dict_shapes, root_of


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
    if config.architecture == TENSORS_ALONE:
        return tensors_alone(read.values, config.num_classes), []
    values = with_name(config.architecture or {})
    if "name" in values:
        return built_structure(values, None, read.values, config.num_classes), []
    try:
        table = "write a table (docs/import.md)"
        return inferred_structure(read, values, config.num_classes, otherwise=table)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
