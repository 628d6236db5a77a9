"""Tables beside files of models that say which descends from which.

lineage.csv             models.csv, as `vitarium export --exporter safetensors` writes it

model,parent            file,name,parent,parent_epoch,epoch,...
base,                   base-epoch-0005.safetensors,base,,,5
tuned,base              tuned-epoch-0003.safetensors,tuned,base,5,3
soup,base;tuned
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from vitarium.core.csv_cells import unguarded
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.numerals import is_number
from vitarium.core.registry import plugins
from vitarium.formats.importers.checkpoint_table import METRICS
from vitarium.formats.weights import check_place
from vitarium.lineage.ground_truth import CheckpointRef, Origins
from vitarium.zoo.listing import SCORES

LINEAGE, MODELS = "lineage.csv", "models.csv"
_RESERVED_COLUMNS = (
    "file",
    "name",
    "stage",
    "parent",
    "parent_epoch",
    "epoch",
    "num_classes",
    "ingredients",
)
_ID = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class ParentTable:
    """True parents as a table has them.

    Args:
        path: the table's file.
        places: of every file that it speaks of, by its path in the folder, which model it is.
        origins: from what a model started, or of what it was made.
        about: by file, what else it says, to be shown: see `LoadedModels.info`.
    """

    path: Path
    checkpoints: Mapping[str, CheckpointRef]
    origins: Origins
    info: Mapping[str, dict[str, Any]]


def find_parent_table(
    folder: Path, files: Mapping[str, Path], names: Sequence[str]
) -> ParentTable | None:
    """The folder's `lineage.csv`, else its `models.csv` if that has a column `parent`.

    Args:
        files: of the folder, by model's name.
        names: of the models that were read; each needs a row.

    Raises InvalidInput that names the table, the row and what to do.
    """
    if (folder / LINEAGE).exists():
        table = _from_lineage_csv(folder / LINEAGE, files, folder)
    elif (folder / MODELS).exists():
        model_table = _from_models_csv(folder / MODELS)
        if model_table is None:
            return None
        table = model_table
    else:
        return None
    for name in names:
        file = files[name].relative_to(folder).as_posix()
        if file not in table.checkpoints:
            raise InvalidInput(
                f"{table.path} has no row for {file}; add one (that of a root has no parent), or "
                "remove the table"
            )
    return table


def _from_lineage_csv(path: Path, files: Mapping[str, Path], folder: Path) -> ParentTable:
    """`model` is a file with or without its suffix, or one that is not here but has a row."""
    rows = list(_rows(path, ("model", "parent")))
    names_by_file = {file.relative_to(folder).as_posix(): name for name, file in files.items()}

    def model_name(cell: str) -> str:
        return names_by_file.get(cell, cell)

    listed = {model_name(cells["model"]) for _, cells in rows if "model" in cells}
    parents: dict[str, list[CheckpointRef]] = {}
    for number, cells in rows:
        if "model" not in cells:
            raise InvalidInput(f"{path}, row {number}: no model is named")
        model = model_name(cells["model"])
        parents.setdefault(model, [])
        for cell in filter(None, map(str.strip, cells.get("parent", "").split(";"))):
            if model_name(cell) not in listed and model_name(cell) not in files:
                raise InvalidInput(
                    f"{path}, row {number}: there is no file of '{cell}', and no row"
                    f"{did_you_mean(cell, {*listed, *files})}; give a parent whose file is not "
                    "here a row of its own"
                )
            parents[model].append(CheckpointRef(model_name(cell), math.inf))
    _check_circles(path, parents)
    checkpoints = {
        file: CheckpointRef(name, 0) for file, name in names_by_file.items() if name in parents
    }
    return ParentTable(path, checkpoints, lambda model: parents.get(model, ()), {})


def _from_models_csv(path: Path) -> ParentTable | None:
    """As `vitarium export` writes it, and `vitarium import` reads it; None: it tells no parents."""
    rows = list(_rows(path, ("file",)))
    with path.open(newline="", encoding="utf-8-sig") as file:
        if "parent" not in next(csv.reader(file)):
            return None
    names = {cells.get("name", cells["file"]) for _, cells in rows if "file" in cells}
    checkpoints, parents, info = {}, dict[str, list[CheckpointRef]](), {}
    factors = _factors([cells for _, cells in rows])
    for number, cells in rows:
        if "file" not in cells:
            raise InvalidInput(f"{path}, row {number}: no file is named")
        name = cells.get("name", cells["file"])
        origins = _parents(path, number, cells)
        for parent in origins:
            # exported models have parents that were not exported; those have ids
            if parent.model not in names and not _ID.fullmatch(parent.model):
                raise InvalidInput(
                    f"{path}, row {number}: no row has the name '{parent.model}' of its parent"
                    f"{did_you_mean(parent.model, names)}"
                )
        if parents.setdefault(name, origins) != origins:
            raise InvalidInput(f"{path}, row {number}: {name} has another parent in a row before")
        checkpoints[cells["file"]] = CheckpointRef(name, _number(path, number, cells, "epoch", 0))
        info[cells["file"]] = _display_info(cells, checkpoints[cells["file"]], factors)
    _check_circles(path, parents)
    return ParentTable(path, checkpoints, lambda model: parents.get(model, ()), info)


def _parents(path: Path, number: int, cells: Mapping[str, str]) -> list[CheckpointRef]:
    origins = []
    operator = plugins("operator").get(cells.get("operator", ""))
    if "operator" in cells:
        try:
            ingredients = [
                ingredient.partition("@") for ingredient in json.loads(cells["ingredients"])
            ]
            origins = [CheckpointRef(model, int(epoch)) for model, _, epoch in ingredients]
        except (KeyError, ValueError, AttributeError, TypeError):
            raise InvalidInput(
                f"{path}, row {number}: {cells['operator']} made the model, and the column "
                'ingredients does not say of what, as in ["3f2a0c41d9e7@5"]; export the zoo anew, '
                f"or say in a {LINEAGE} (columns model, parent) which descends from which"
            ) from None
    if operator and operator.facts.get("aligns"):
        return origins[-1:]
    if "parent" in cells:
        epoch = _number(path, number, cells, "parent_epoch", math.inf)
        origins.append(CheckpointRef(cells["parent"], epoch))
    return origins


def _factors(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns that are neither ours nor measured, and in which rows that have a value differ."""
    names = dict.fromkeys(name for cells in rows for name in cells)
    return [
        name
        for name in names
        if name not in _RESERVED_COLUMNS
        and not name.startswith(METRICS)
        and len({cells[name] for cells in rows if name in cells}) > 1
    ]


def _display_info(
    cells: Mapping[str, str], checkpoint: CheckpointRef, factors: Sequence[str]
) -> dict[str, Any]:
    scores = (cells[name] for name in SCORES if name in cells)
    try:
        accuracy = next(map(float, scores), None)
    except ValueError:  # a text, and of no use here
        accuracy = None
    return {
        "name": checkpoint.model,
        "stage": cells.get("stage"),
        "epoch": checkpoint.epoch,
        "accuracy": accuracy,
        "factors": {name: cells[name] for name in factors if name in cells},
    }


def _number(
    path: Path, number: int, cells: Mapping[str, str], column: str, otherwise: float
) -> float:
    cell = cells.get(column)
    if cell is None:
        return otherwise
    if not is_number(cell):
        raise InvalidInput(f"{path}, row {number}: '{cell}' in column {column} is no whole number")
    return int(cell)


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Numbers, as a spreadsheet counts (the header is row 1), and cells that are not empty."""
    check_place(path, path.parent)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [unguarded(cell.strip()) for cell in next(reader, [])]
            for column in needed:
                if header.count(column) != 1:
                    raise InvalidInput(
                        f"{path}, row 1: it needs one column '{column}'; it has "
                        f"{', '.join(header) or 'none at all'}"
                    )
            for cells in reader:
                if len(cells) not in (0, len(header)):
                    raise InvalidInput(
                        f"{path}, row {reader.line_num}: {len(cells)} cells under "
                        f"{len(header)} columns"
                    )
                named = zip(header, (unguarded(cell.strip()) for cell in cells), strict=False)
                if filled := {column: cell for column, cell in named if cell}:
                    yield reader.line_num, filled
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read as a table ({error})") from None


def _check_circles(path: Path, parents: Mapping[str, Sequence[CheckpointRef]]) -> None:
    graph = {
        model: [checkpoint.model for checkpoint in checkpoints]
        for model, checkpoints in parents.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise InvalidInput(
            f"{path}: a model cannot be its own ancestor: {' -> '.join(error.args[1])}"
        ) from None
