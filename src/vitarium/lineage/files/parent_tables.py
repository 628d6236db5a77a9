"""Tables beside files of models that say which descends from which.

lineage.csv             models.csv, as `vitarium export --exporter safetensors` writes it

model,parent            file,name,parent,parent_epoch,epoch,...
base,                   base-epoch-0005.safetensors,base,,,5
tuned,base              tuned-epoch-0003.safetensors,tuned,base,5,3
soup,base;tuned
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.csv_cells import unguarded
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.numerals import is_number
from vitarium.core.registry import plugins
from vitarium.formats.importers.checkpoint_table import METADATA, METRICS
from vitarium.formats.weights import check_place
from vitarium.lineage.ground_truth import LAST
from vitarium.zoo.listing import SCORES

LINEAGE, MODELS = "lineage.csv", "models.csv"
_NOT_FACTORS = (*METADATA, "file", "ingredients")
_ID = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class ParentTable:
    """True parents as a table has them; of a model, what it started from or was made of."""

    path: Path
    checkpoints: Mapping[str, CheckpointRef]
    """By file's path in the folder."""
    parents: Mapping[str, Sequence[CheckpointRef]]
    info: Mapping[str, dict[str, Any]]
    """By file, see `LoadedModels.info`."""


def find_parent_table(
    folder: Path, files: Mapping[str, Path], names: Sequence[str]
) -> ParentTable | None:
    """The folder's `lineage.csv`, else its `models.csv` if that has a column `parent`. Files are of
    the folder, by model's name; each of the names, which were read, needs a row. Raises
    InvalidInput that names the table, the row and what to do."""
    paths = {name: file.relative_to(folder).as_posix() for name, file in files.items()}
    table = None
    if (folder / LINEAGE).exists():
        table = _from_lineage_csv(folder / LINEAGE, paths)
    elif (folder / MODELS).exists():
        table = _from_models_csv(folder / MODELS)
    if table is None:
        return None
    try:
        graph = {model: [p.model for p in parents] for model, parents in table.parents.items()}
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise InvalidInput(f"{table.path}: a model cannot be its own ancestor: {circle}") from None
    for name in names:
        if paths[name] not in table.checkpoints:
            hint = "add one (that of a root has no parent), or remove the table"
            raise InvalidInput(f"{table.path} has no row for {paths[name]}; {hint}")
    return table


def _from_lineage_csv(path: Path, paths: Mapping[str, str]) -> ParentTable:
    """`model` is a file with or without its suffix, or one that is not here but has a row."""
    names = {file: name for name, file in paths.items()}
    rows = list(_rows(path, "model", "parent"))
    known = {names.get(cells["model"], cells["model"]) for _, cells in rows if "model" in cells}
    known |= paths.keys()
    parents: dict[str, list[CheckpointRef]] = {}
    for where, cells in rows:
        if "model" not in cells:
            raise InvalidInput(f"{where}: no model is named")
        of_model = parents.setdefault(names.get(cells["model"], cells["model"]), [])
        for cell in filter(None, map(str.strip, cells.get("parent", "").split(";"))):
            if names.get(cell, cell) not in known:
                hint = "give a parent whose file is not here a row of its own"
                what = f"there is no file of '{cell}', and no row{did_you_mean(cell, known)}"
                raise InvalidInput(f"{where}: {what}; {hint}")
            of_model.append(CheckpointRef(names.get(cell, cell), LAST))
    checkpoints = {file: CheckpointRef(name, 0) for file, name in names.items() if name in parents}
    return ParentTable(path, checkpoints, parents, {})


def _from_models_csv(path: Path) -> ParentTable | None:
    """As `vitarium export` writes it, and `vitarium import` reads it; None: it tells no parents."""
    rows = list(_rows(path, "file"))
    with path.open(newline="", encoding="utf-8-sig") as file:
        if "parent" not in next(csv.reader(file)):
            return None
    names = {cells.get("name", cells["file"]) for _, cells in rows if "file" in cells}
    checkpoints, parents, info = {}, dict[str, list[CheckpointRef]](), {}
    values = defaultdict[str, set[str]](set)
    for _, cells in rows:
        for column, cell in cells.items():
            values[column].add(cell)
    others = [c for c in values if c not in _NOT_FACTORS and not c.startswith(METRICS)]
    factors = [c for c in others if len(values[c]) > 1]  # rows that have a value differ in it
    for where, cells in rows:
        if "file" not in cells:
            raise InvalidInput(f"{where}: no file is named")
        name = cells.get("name", cells["file"])
        origins = _parents(where, cells)
        for parent in origins:
            # exported models have parents that were not exported; those have ids
            if parent.model not in names and not _ID.fullmatch(parent.model):
                what = f"no row has the name '{parent.model}' of its parent"
                raise InvalidInput(f"{where}: {what}{did_you_mean(parent.model, names)}")
        if parents.setdefault(name, origins) != origins:
            raise InvalidInput(f"{where}: {name} has another parent in a row before")
        checkpoint = CheckpointRef(name, _number(where, cells, "epoch", 0))
        try:
            accuracy = next((float(cells[score]) for score in SCORES if score in cells), None)
        except ValueError:  # a text, and of no use here
            accuracy = None
        checkpoints[cells["file"]] = checkpoint
        info[cells["file"]] = {
            "name": name,
            "stage": cells.get("stage"),
            "epoch": checkpoint.epoch,
            "accuracy": accuracy,
            "factors": {factor: cells[factor] for factor in factors if factor in cells},
        }
    return ParentTable(path, checkpoints, parents, info)


def _parents(where: str, cells: Mapping[str, str]) -> list[CheckpointRef]:
    origins = []
    operator = plugins("operator").get(cells.get("operator", ""))
    if "operator" in cells:
        try:
            refs = [ref.partition("@") for ref in json.loads(cells["ingredients"])]
            origins = [CheckpointRef(model, int(epoch)) for model, _, epoch in refs]
        except (KeyError, ValueError, AttributeError, TypeError):
            raise InvalidInput(
                f"{where}: {cells['operator']} made the model, and the column ingredients does not "
                'say of what, as in ["3f2a0c41d9e7@5"]; export the zoo anew, or say in a '
                f"{LINEAGE} (columns model, parent) which descends from which"
            ) from None
    if operator and operator.facts.get("aligns"):
        return origins[-1:]
    if "parent" in cells:
        origins.append(CheckpointRef(cells["parent"], _number(where, cells, "parent_epoch", LAST)))
    return origins


def _number(where: str, cells: Mapping[str, str], column: str, otherwise: int) -> int:
    cell = cells.get(column)
    if cell is not None and not is_number(cell):
        raise InvalidInput(f"{where}: '{cell}' in column {column} is no whole number")
    return otherwise if cell is None else int(cell)


def _rows(path: Path, *needed: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row is, as a spreadsheet counts (the header is row 1), and its filled cells."""
    check_place(path, path.parent)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [unguarded(cell.strip()) for cell in next(reader, [])]
            for column in needed:
                if header.count(column) != 1:
                    columns = ", ".join(header) or "none at all"
                    what = f"it needs one column '{column}'; it has {columns}"
                    raise InvalidInput(f"{path}, row 1: {what}")
            for cells in reader:
                where = f"{path}, row {reader.line_num}"
                if len(cells) not in (0, len(header)):
                    raise InvalidInput(f"{where}: {len(cells)} cells under {len(header)} columns")
                texts = (unguarded(cell.strip()) for cell in cells)
                if filled := {c: text for c, text in zip(header, texts, strict=False) if text}:
                    yield where, filled
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read as a table ({error})") from None
