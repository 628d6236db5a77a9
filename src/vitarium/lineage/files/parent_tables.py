"""Tables beside files of models that say which descends from which.

lineage.csv             models.csv, as `vitarium export --exporter safetensors` writes it

model,parent            file,name,parent,parent_epoch,epoch,...
base,                   base-epoch-0005.safetensors,base,,,5
tuned,base              tuned-epoch-0003.safetensors,tuned,base,5,3
soup,base;tuned
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, did_you_mean
from vitarium.core.registry import plugins
from vitarium.formats.importers._table_metrics import evaluation_sets, is_metric
from vitarium.formats.importers._table_rows import Row, header, read_rows
from vitarium.formats.importers.checkpoint_table import METADATA
from vitarium.formats.weights import check_place
from vitarium.lineage.ground_truth import LAST
from vitarium.zoo.listing import SCORES

LINEAGE, MODELS = "lineage.csv", "models.csv"
_NOT_FACTORS = (*METADATA, "file", "ingredients")
_ID = re.compile("[0-9a-f]{12}")


class ParentTable(NamedTuple):
    """True parents as a table has them; of a model, what it started from or was made of."""

    path: Path
    checkpoints: Mapping[str, CheckpointRef]  # by file's path in the folder
    parents: Mapping[str, Sequence[CheckpointRef]]
    info: Mapping[str, dict[str, Any]]  # by file, see `LoadedModels.info`


def find_parent_table(
    folder: Path, files: Mapping[str, Path], names: Sequence[str]
) -> ParentTable | None:
    """The folder's `lineage.csv`, else its `models.csv` if that has a column `parent`. Files are of
    the folder, by model's name; each of the names, which were read, needs a row. Raises
    InvalidInput that names the table, the row and what to do."""
    paths = {name: file.relative_to(folder).as_posix() for name, file in files.items()}
    path = folder / (LINEAGE if (folder / LINEAGE).exists() else MODELS)
    if not path.exists():
        return None
    check_place(path, folder)
    table = _from_lineage_csv(path, paths) if path.name == LINEAGE else _from_models_csv(path)
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
    rows = [(row, row.cells["model"]) for row in read_rows(path, "model", "parent")]
    known = {names.get(model, model) for _, model in rows} | paths.keys()
    parents: dict[str, list[CheckpointRef]] = {}
    for row, model in rows:
        of_model = parents.setdefault(names.get(model, model), [])
        for cell in filter(None, map(str.strip, row.cells.get("parent", "").split(";"))):
            if names.get(cell, cell) not in known:
                hint = "give a parent whose file is not here a row of its own"
                what = f"there is no file of '{cell}', and no row{did_you_mean(cell, known)}"
                raise row.wrong("parent", f"{what}; {hint}")
            of_model.append(CheckpointRef(names.get(cell, cell), LAST))
    checkpoints = {file: CheckpointRef(name, 0) for file, name in names.items() if name in parents}
    return ParentTable(path, checkpoints, parents, {})


def _from_models_csv(path: Path) -> ParentTable | None:
    """As `vitarium export` writes it, and `vitarium import` reads it; None: it tells no parents."""
    rows = list(read_rows(path, "file"))
    if "parent" not in header(path):
        return None
    names = {row.cells.get("name", row.cells["file"]) for row in rows}
    checkpoints, parents, info = {}, dict[str, list[CheckpointRef]](), {}
    values = defaultdict[str, set[str]](set)
    for row in rows:
        for column, cell in row.cells.items():
            values[column].add(cell)
    sets = evaluation_sets(values)
    others = [c for c in values if c not in _NOT_FACTORS and not is_metric(c, sets)]
    factors = [c for c in others if len(values[c]) > 1]  # rows that have a value differ in it
    for row in rows:
        where, cells = f"{path}, row {row.number}", row.cells
        name = cells.get("name", cells["file"])
        origins = _parents(where, row)
        for parent in origins:
            # exported models have parents that were not exported; those have ids
            if parent.model not in names and not _ID.fullmatch(parent.model):
                what = f"no row has the name '{parent.model}' of its parent"
                raise InvalidInput(f"{where}: {what}{did_you_mean(parent.model, names)}")
        if parents.setdefault(name, origins) != origins:
            raise InvalidInput(f"{where}: {name} has another parent in a row before")
        checkpoint = CheckpointRef(name, row.number_of("epoch") or 0)
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


def _parents(where: str, row: Row) -> list[CheckpointRef]:
    origins, cells = [], row.cells
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
        epoch = row.number_of("parent_epoch")
        origins.append(CheckpointRef(cells["parent"], LAST if epoch is None else epoch))
    return origins
