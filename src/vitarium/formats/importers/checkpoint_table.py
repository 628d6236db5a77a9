"""Files of weights with a table that tells what they are: a row a file, a column a factor.

file,name,parent,architecture,optimizer.lr,seed
a.safetensors,a,,vit_tiny_patch16_224,0.001,1
b.pth,b,a,vit_tiny_patch16_224,0.0001,2
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator

from vitarium.blueprint.overrides import apply
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput, UnknownName, did_you_mean
from vitarium.core.printable import encodable
from vitarium.core.registry import Section, section
from vitarium.formats.base import ForeignEpoch, ForeignModel, importer
from vitarium.formats.importers import _table_images as images
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
from vitarium.formats.importers._table_metrics import evaluation_sets, is_metric
from vitarium.formats.importers._table_rows import Row, header, read_rows, table_of, tables_of
from vitarium.formats.weights import StateDict, read_state_dict_shapes
from vitarium.zoo._index import TABLES

_MODEL = ("name", "parent", "parent_epoch", "epoch", "initial_epoch", "stage", "num_classes")
METADATA = (*_MODEL, *images.COLUMNS)
"""Columns of neither factors nor metrics."""


class CheckpointTable(ModelSettings):
    """How the table is read; `architecture` and `num_classes` are of rows that do not say. An
    architecture that neither names is inferred; `none` keeps the tensors alone."""

    table: str | None = None
    """The table: its name in the folder, or a path; default: the only CSV file in the folder."""
    file_column: str = "file"
    """Column with the path of each file, relative to the folder that is imported, which for a table
    alone is its own."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    """Character between the columns of the table."""
    evaluation_sets: tuple[str, ...] = ()
    """Further data sets on which models were scored, a list or `v2,v3`: then `v2_accuracy` is a
    metric. Those that columns such as `evaluate_on.v2.data` name are known."""

    def metrics(self, cells: Collection[str]) -> set[str]:
        """Columns, of these with a value, that are numbers of an epoch, not factors."""
        sets = {*self.evaluation_sets, *evaluation_sets(cells)}
        return {column for column in cells if is_metric(column, sets)}

    @field_validator("table", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("evaluation_sets", mode="before")
    @classmethod
    def _names_as_list(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def is_checkpoint_table(source: Path) -> bool:
    """Whether it is a CSV file with a column `file`, or a folder with one."""
    try:
        return any("file" in header(table) for table in tables_of(source))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


@importer("checkpoint_table", detects=is_checkpoint_table)
def checkpoint_table(config: CheckpointTable, source: Path) -> Iterator[ForeignModel]:
    """Files of weights (.safetensors, .pth, .pth.tar, .pt, .bin, .ckpt), with a CSV table."""
    table = table_of(source, config.table)
    is_weights = source.is_file() and source.suffix != ".csv"
    models: dict[str, list[Row]] = defaultdict(list)
    hint, delimiter = "; name the column of files with file_column=NAME", config.delimiter
    folder = source if source.is_dir() else source.parent
    where: dict[str, Any] = {"folder": folder, "delimiter": delimiter}
    for row in read_rows(table, config.file_column, **where, hint=hint, unique=True):
        if is_weights and not row.has_file(config.file_column, source):
            continue
        models[row.cells.get("name") or row.cells[config.file_column]].append(row)
    if is_weights and not models:
        raise InvalidInput(f"{table} has no row of {source}; files are as seen from {folder}")
    for name, rows in models.items():
        yield _model(name, rows, config)


def _model(name: str, rows: Sequence[Row], config: CheckpointTable) -> ForeignModel:
    """A model of its rows, one an epoch; a column that is nothing else is a factor."""
    first = rows[0]
    no_factors = {*METADATA, config.file_column, *config.metrics(first.cells)}
    factors = [c for c in first.cells if c not in no_factors]
    epochs = sorted((_epoch(row, config) for row in rows), key=lambda epoch: epoch.number)
    _check_same(rows, config)
    read = read_state_dict_shapes(first.file(config.file_column), first.folder, config)
    structure, structure_notes = _structure(first, read, config)
    settings = {c: _value(first.cells[c]) for c in factors if not _structural(c)}
    return ForeignModel(
        name=name,
        stage=first.cells.get("stage", "imported"),
        epochs=epochs,
        num_outputs=structure.num_outputs,
        parent=first.cells.get("parent"),
        parent_epoch=first.number_of("parent_epoch"),
        initial_epoch=first.number_of("initial_epoch"),
        architecture=structure.architecture,
        head=structure.head,
        settings=settings | images.normalization(first),
        classes=images.classes(first, structure.num_outputs),
        where=first.where,
        notes=(*structure_notes, *read.notes, *_shadowed(settings)),
    )


def _shadowed(settings: Iterable[str]) -> Iterator[str]:
    """A note on factors that are called like columns of the zoo's own."""
    if names := [name for name in settings if name.lower() in TABLES["models"]]:
        yield (
            f"the zoo has columns of its own called {', '.join(names)}: call these of the table "
            "otherwise, to list and query them"
        )


def _epoch(row: Row, config: CheckpointTable) -> ForeignEpoch:
    metrics = {}
    of_epoch = config.metrics(row.cells)
    for column, cell in row.cells.items():
        if column in of_epoch:
            try:
                metrics[column] = float(cell)
            except ValueError:
                raise row.wrong(column, f"'{cell}' is not a number") from None
    source = row.file(config.file_column), row.folder, config
    return ForeignEpoch(row.number_of("epoch") or 0, metrics, *weight_readers(*source))


def _check_same(rows: Sequence[Row], config: CheckpointTable) -> None:
    """The rows of one model differ in file, epoch and metrics alone."""
    row_of_epoch: dict[int, Row] = {}
    for row in rows:
        epoch = row.number_of("epoch") or 0
        if epoch in row_of_epoch:
            hint = f"row {row_of_epoch[epoch].number} has the same name and epoch {epoch}"
            raise row.wrong("name" if "name" in row.cells else config.file_column, hint)
        row_of_epoch[epoch] = row
        cells = {**rows[0].cells, **row.cells}
        free = {config.file_column, "epoch", *config.metrics(cells)}
        for column in cells:
            if column not in free and row.cells.get(column) != rows[0].cells.get(column):
                why = f"differs from row {rows[0].number}, which is of the same model"
                raise row.wrong(column, why)


def _structure(
    row: Row, read: StateDict[torch.Size], config: CheckpointTable
) -> tuple[Structure, list[str]]:
    """What builds a row's model, and notes on how that is known. Raises InvalidInput."""
    num_classes = row.number_of("num_classes")
    outputs = config.num_classes if num_classes is None else num_classes
    cells = {key: _value(cell) for key, cell in row.cells.items() if _structural(key)}
    default = {"architecture": config.architecture} if config.architecture is not None else {}
    nested = apply({}, default | cells)
    if _keeps_tensors_alone(row, nested.get("architecture")):
        return tensors_alone(read.values, outputs), []
    head = _head(row, nested["head"]) if "head" in nested else None
    try:
        values = with_name(nested.get("architecture", {}))
        if "name" not in values:
            column = f"fill the column 'architecture' of {row.table.name} (docs/import.md)"
            return inferred_structure(read, values, outputs, head, otherwise=column)
        return built_structure(values, head, read.values, outputs), []
    except UnknownName as error:
        hint = did_you_mean(error.name, error.candidates)
        raise row.wrong("architecture", f"unknown architecture '{error.name}'{hint}") from None
    except InvalidInput as error:
        raise row.wrong("architecture", str(error)) from None


def _keeps_tensors_alone(row: Row, architecture: Any) -> bool:
    if architecture == TENSORS_ALONE:
        return True
    if isinstance(architecture, dict) and architecture.get("name") == TENSORS_ALONE:
        settings = ", ".join(f"architecture.{key}" for key in architecture if key != "name")
        raise row.wrong(
            "architecture", f"'{TENSORS_ALONE}' has no settings: leave {settings} empty"
        )
    return False


def _head(row: Row, value: Any) -> Section:
    try:
        return section("head", value)
    except InvalidConfig as error:
        raise row.wrong("head", str(error)) from None


def _structural(column: str) -> bool:
    return column.partition(".")[0] in ("architecture", "head")


def _value(cell: str) -> Any:
    """A cell as a number, true or false, or a list, where it is one; else its text."""
    if cell in ("True", "False"):
        return cell == "True"
    try:
        value = encodable(json.loads(cell))
    except (ValueError, RecursionError):
        return cell
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, bool | int | float | list) and finite else cell
