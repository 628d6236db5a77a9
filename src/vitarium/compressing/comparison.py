"""What a twin saves, and what it costs: beside its original, in numbers."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from vitarium.blueprint import Recipe
from vitarium.devices import find_devices
from vitarium.measuring import measure
from vitarium.store import Zoo

if TYPE_CHECKING:
    import pandas as pd

_RUNS = 15


def compare(
    zoo: Zoo,
    twins: Mapping[str, str],
    *,
    device: str = "auto",
    data_dir: Path | None = None,
) -> "pd.DataFrame":
    """A row per twin: what it and its original take, and how good they are.

    Columns: model and epoch (the original), twin, then of both (`_before`, `_after`): parameters
    (a shared one counts once), bytes (of the weights in a safetensors file), bytes_in_zoo (packed,
    what they share with other checkpoints left out), accuracy (on the test images of the twin's
    data) and milliseconds (of one image on the device, the median of several runs in turn).

    Args:
        twins: id of the twin by `ID@EPOCH` of its original.
    """
    import pandas as pd

    where = find_devices(device)[0]
    rows = []
    for original, twin in twins.items():
        id, epoch = zoo.at(original)
        pair = [(id, epoch), zoo.at(twin)]
        found = {"model": id, "epoch": epoch, "twin": twin}
        scores = _accuracies(zoo, pair, device, data_dir)
        times = _milliseconds([zoo.load(*one) for one in pair], _input_size(zoo, twin), where)
        for when, one, accuracy, milliseconds in zip(
            ("before", "after"), pair, scores, times, strict=True
        ):
            checkpoint = zoo.checkpoint(*one)
            about = {
                "parameters": sum(stored.count for stored in checkpoint.tensors.values()),
                "bytes": checkpoint.nbytes,
                "bytes_in_zoo": checkpoint.path.stat().st_size,
                "accuracy": accuracy,
                "milliseconds": milliseconds,
            }
            found |= {f"{name}_{when}": value for name, value in about.items()}
        rows.append(found)
    return pd.DataFrame(rows)


def _accuracies(
    zoo: Zoo, pair: list[tuple[str, int]], device: str, data_dir: Path | None
) -> list[float]:
    """Of both on the twin's data; where the original's differs, it is asked about that, too."""
    origin = zoo.spec(pair[1][0]).origin
    data = origin.data.factors() if isinstance(origin, Recipe) else None
    scores = []
    for id, epoch in pair:
        found = measure(
            zoo,
            "accuracy",
            models=[id],
            epochs=[epoch],
            data=data,
            device=device,
            data_dir=data_dir,
        )
        whole = found[(found["part"] == "") & found["value"].notna()]
        scores.append(float(whole["value"].iloc[0]) if len(whole) else float("nan"))
    return scores


def _input_size(zoo: Zoo, model: str) -> tuple[int, int, int]:
    architecture = zoo.spec(model).origin.architecture
    assert architecture  # a twin was trained here
    size: tuple[int, int, int] = architecture.config.input_size
    return size


@torch.inference_mode()
def _milliseconds(models: list[nn.Module], size: tuple[int, int, int], device: str) -> list[float]:
    """Of each model, run in turn, so that whatever else the machine does falls on all alike."""
    image = torch.zeros(1, *size, device=device)
    moved = [model.to(device).eval() for model in models]
    times: list[list[float]] = [[] for _ in models]
    for run in range(_RUNS + 2):
        for model, own in zip(moved, times, strict=True):
            started = time.perf_counter()
            model(image)
            if device != "cpu":
                torch.cuda.synchronize(device)
            if run > 1:
                own.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(own) for own in times]
