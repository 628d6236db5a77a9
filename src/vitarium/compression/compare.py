"""What a student saves, and what it costs: beside its original, in numbers."""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vitarium.blueprint import Recipe
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import find_devices
from vitarium.measures._runner.measure import measure
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

_RUNS = 15


def compare(
    zoo: Zoo, students: Mapping[str, str], *, device: str = "auto", data_dir: Path | None = None
) -> "pd.DataFrame":
    """A row per student: what it and its original take, and how good they are.

    Columns: model and epoch (the original), student, then of both (`_before`, `_after`): parameters
    (a shared one counts once), bytes (of the weights in a safetensors file), bytes_in_zoo (packed,
    what they share with other checkpoints left out), accuracy (on the test images of the student's
    data), refused (why there is none, or "") and milliseconds (of one image on the device, the
    median of several runs in turn).

    Args:
        students: id of the student by `ID@EPOCH` of its original.
    """
    import pandas as pd

    where = find_devices(device)[0]
    pairs = {student: [zoo.at(original), zoo.at(student)] for original, student in students.items()}
    scores = _accuracies(zoo, pairs, device, data_dir)
    rows = []
    for student, pair in pairs.items():
        architecture = zoo.spec(student).origin.architecture
        assert architecture  # a student was trained here
        times = _milliseconds(
            [zoo.load(*ref) for ref in pair], architecture.config.input_size, where
        )
        row: dict[str, Any] = {**pair[0]._asdict(), "student": student}
        for when, ref, milliseconds in zip(("before", "after"), pair, times, strict=True):
            checkpoint = zoo.checkpoint(*ref)
            accuracy, refused = scores[student, ref]
            about = {
                "parameters": sum(stored.count for stored in checkpoint.tensors.values()),
                "bytes": checkpoint.nbytes,
                "bytes_in_zoo": checkpoint.path.stat().st_size,
                "accuracy": accuracy,
                "refused": refused,
                "milliseconds": milliseconds,
            }
            row |= {f"{name}_{when}": value for name, value in about.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracies(
    zoo: Zoo, pairs: Mapping[str, list[CheckpointRef]], device: str, data_dir: Path | None
) -> dict[tuple[str, CheckpointRef], tuple[float, str]]:
    """Of every student and of its original on the student's data, or why there is none.

    What is measured on the same data after the same epoch is measured in one run.
    """
    runs: dict[tuple[str, int], list[tuple[str, CheckpointRef]]] = {}
    for student, pair in pairs.items():
        origin = zoo.spec(student).origin
        assert isinstance(origin, Recipe)  # a student was trained here
        data = json.dumps(origin.data.factors(), sort_keys=True)
        for ref in pair:
            runs.setdefault((data, ref.epoch), []).append((student, ref))
    scores = {}
    for (data, epoch), members in runs.items():
        models = list(dict.fromkeys(ref.model for _, ref in members))
        where: dict[str, Any] = {"data": json.loads(data), "device": device, "data_dir": data_dir}
        table = measure(zoo, "accuracy", models=models, epochs=[epoch], **where)
        accuracies = table[table["part"] == ""].set_index("model")
        for student, ref in members:
            row = accuracies.loc[ref.model]
            scores[student, ref] = (float(row["value"]), row["refused"])
    return scores


@torch.inference_mode()
def _milliseconds(models: list[nn.Module], size: tuple[int, int, int], device: str) -> list[float]:
    """Of each model, run in turn, so that whatever else the machine does falls on all alike."""
    image = torch.zeros(1, *size, device=device)
    moved = [model.to(device).eval() for model in models]
    times: list[list[float]] = [[] for _ in models]
    for run in range(_RUNS + 2):
        for model, model_times in zip(moved, times, strict=True):
            started = time.perf_counter()
            model(image)
            if device != "cpu":
                torch.cuda.synchronize(device)
            if run > 1:
                model_times.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(model_times) for model_times in times]
