"""A safetensors file per model, and a table of what each is: for programs of one's own."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import NoConfig
from vitarium.core.csv_cells import guarded
from vitarium.formats.base import Checkpoints, checkpoint_name, exporter
from vitarium.formats.importers._table_metrics import evaluation_sets, is_metric
from vitarium.zoo import Zoo


@exporter("safetensors", opened_by='safetensors.torch.load_file("{path}")')
def safetensors_files(config: NoConfig, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """A safetensors file per model, with its factors in the header, and a table models.csv.

    Tensors are the zoo's, bit for bit, under the model's own names (timm's). The header has one
    entry, `vitarium`: the model's row of the table, as JSON.
    """
    rows = []
    for checkpoint in models:
        row = _row(zoo, checkpoint)
        notes = {"vitarium": json.dumps(row, sort_keys=True)}
        save_file(zoo.state_dict(*checkpoint), out / row["file"], metadata=notes)
        rows.append(row)
        yield out / row["file"]
    # a column per factor that any model has; lists as JSON, nothing where it is not set
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = out / "models.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_headings(columns))
        writer.writerows([_cell(row.get(key)) for key in columns] for row in rows)
    yield table


def _row(zoo: Zoo, checkpoint: CheckpointRef) -> dict[str, Any]:
    """What is known of a model, its factors that are set, and its scores after that epoch."""
    id, epoch = checkpoint
    spec, folder = zoo.spec(id), zoo.folder(id)
    factors, merge_columns = spec.described(), dict[str, Any]()
    architecture = factors.pop("architecture", None)
    if spec.origin.adds_modules:  # importing knows of no architecture with what was added
        backbone = {n: v for n, v in factors.items() if n.startswith("architecture.")}
        factors = {n: v for n, v in factors.items() if n not in backbone} | {
            n.replace("architecture", "backbone"): v for n, v in backbone.items()
        }
        factors, architecture = {"backbone": architecture, **factors}, None
    if architecture is None:
        architecture = "none"  # else importing would infer it from names and shapes
    if spec.operator:
        ingredients = list(map(str, spec.ingredients))
        merge_columns = {"operator": spec.operator.name, "ingredients": ingredients}
    metrics = next(record.metrics for record in folder.epochs() if record.number == epoch)
    sets = evaluation_sets(factors)
    return {
        "file": f"{checkpoint_name(checkpoint)}.safetensors",
        "name": id,
        "stage": spec.stage,
        "parent": spec.parent,
        "parent_epoch": spec.parent_epoch,
        "epoch": epoch,
        "initial_epoch": spec.initial_epoch,
        "architecture": architecture,
        "num_classes": folder.about().num_outputs,
        **merge_columns,
        **{key: value for key, value in factors.items() if key != "name" and value is not None},
        **{name: value for name, value in metrics.items() if is_metric(name, sets)},
    }


def _headings(columns: Sequence[str]) -> list[str]:
    """Distinct names of columns, none of them blank; importing strips spaces at both ends."""
    headings: list[str] = []
    for column in columns:
        heading, number = guarded(column.strip()) or "unnamed", 1
        while (candidate := heading if number == 1 else f"{heading} {number}") in headings:
            number += 1
        headings.append(candidate)
    return headings


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | bool):
        return json.dumps(value)
    return guarded(value) if isinstance(value, str) else value
