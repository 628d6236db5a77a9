"""What a compact student takes, and how good it is, beside its original."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitarium.architectures.base import packed_counts
from vitarium.architectures.features import leaves_early
from vitarium.blueprint import Imported, Recipe
from vitarium.blueprint.normalization import OWN_DATA
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import find_devices
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import section
from vitarium.data.preprocessing import Assumed
from vitarium.engine.tuning.gain import Gain
from vitarium.evaluation.latency import RUNS, paired_seconds
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.measure import measure
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

_TIMED_IMAGES = 10
"""By which a model is timed that images leave early; each is run several times."""


def compare(
    zoo: Zoo,
    students: Mapping[str, str | Sequence[str]],
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    data: str | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
) -> "pd.DataFrame":
    """A row per student: what it and its original take, and how good they are.

    data, normalization: what models are measured on that were trained elsewhere, as of
    `vitarium.measure`; all others, on their own.

    Columns: model and epoch (the original), student, then of both (`_before`, `_after`): parameters
    (a shared one counts once), bytes (of the weights in a safetensors file), bytes_in_zoo (packed,
    what they share with other checkpoints left out), accuracy (on the test images of the student's
    data), refused (why there is none, or "") and milliseconds (of one image on the device, the
    median of runs in turn; where images leave early, of some test images of the student's data).
    speedup: how many times faster the student is, the median over pairs of runs that followed each
    other, with its quartiles (`_low`, `_high`). `students` has their ids, or a single one's, by
    `ID@EPOCH` of the originals.
    """
    import pandas as pd

    where = find_devices(device)[0]
    listed = {old: [new] if isinstance(new, str) else new for old, new in students.items()}
    pairs = {new: [zoo.at(old), zoo.at(new)] for old, several in listed.items() for new in several}
    given = (data, normalization)
    scores = _accuracies(zoo, pairs, device, data_dir, given)
    rows = []
    for student, pair in pairs.items():
        architecture = zoo.spec(student).origin.architecture
        assert architecture  # an operator made one of it
        before, after = (zoo.load(*ref) for ref in pair)
        images = [torch.zeros(1, *architecture.config.input_size, device=where)]
        if leaves_early(before) or leaves_early(after):
            images = _test_images(zoo, pair[1], where, data_dir, given)
        runs = RUNS // max(len(images), 1)
        times = [t for image in images for t in paired_seconds(before, after, image, runs)]
        times = times or [(math.nan, math.nan)] * 2
        medians = [1e3 * statistics.median(seconds) for seconds in zip(*times, strict=True)]
        speedup = Gain.of(slow / fast for slow, fast in times)
        row: dict[str, Any] = {**pair[0]._asdict(), "student": student}
        models = zip(("before", "after"), pair, (before, after), medians, strict=True)
        for when, ref, model, milliseconds in models:
            checkpoint = zoo.checkpoint(*ref)
            counts = {name: stored.count for name, stored in checkpoint.tensors.items()}
            counts |= packed_counts(model)
            accuracy, refused = scores[student, ref]
            about = {
                "parameters": sum(counts.values()),
                "bytes": checkpoint.nbytes,
                "bytes_in_zoo": checkpoint.path.stat().st_size,
                "accuracy": accuracy,
                "refused": refused,
                "milliseconds": milliseconds,
            }
            row |= {f"{name}_{when}": value for name, value in about.items()}
        row |= {"speedup": speedup.median, "speedup_low": speedup.low, "speedup_high": speedup.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracies(
    zoo: Zoo,
    pairs: Mapping[str, list[CheckpointRef]],
    device: str,
    data_dir: Path | None,
    given: tuple[str | Mapping[str, Any] | None, Assumed | None],
) -> dict[tuple[str, CheckpointRef], tuple[float, str]]:
    """Of every student and of its original on the student's data, or why there is none.

    An original of which no normalization is known was compressed with the student's. What is
    measured on the same data after the same epoch is measured in one run.
    """
    runs: dict[tuple[str, str, int], list[tuple[str, CheckpointRef]]] = {}
    for student, pair in pairs.items():
        origin, (data, assumed) = zoo.spec(student).origin, given
        if isinstance(origin, Recipe):
            data = origin.data.factors()
            chosen = origin.normalization.values if origin.normalization else OWN_DATA
            assumed = chosen if isinstance(zoo.spec(pair[0].model).origin, Imported) else None
        images = json.dumps(data, sort_keys=True), json.dumps(assumed)
        for ref in pair:
            runs.setdefault((*images, ref.epoch), []).append((student, ref))
    scores = {}
    for (about_data, about_pixels, epoch), members in runs.items():
        models = list(dict.fromkeys(ref.model for _, ref in members))
        where: dict[str, Any] = {"data": json.loads(about_data), "device": device}
        where |= {"normalization": json.loads(about_pixels), "data_dir": data_dir}
        table = measure(zoo, "accuracy", models=models, epochs=[epoch], **where)
        accuracies = table[table["part"] == ""].set_index("model")
        for student, ref in members:
            row = accuracies.loc[ref.model]
            scores[student, ref] = (float(row["value"]), row["refused"])
    return scores


def _test_images(
    zoo: Zoo,
    student: CheckpointRef,
    device: str,
    data_dir: Path | None,
    given: tuple[str | Mapping[str, Any] | None, Assumed | None],
) -> list[Tensor]:
    """Images of the test split as a student sees them, each [1, c, h, w]; none without data."""
    data, normalization = given
    named = None if data is None else section("dataset", data)
    where: dict[str, Any] = {"device": device, "data_dir": data_dir}
    loader = ModelLoader(zoo, data=named, normalization=normalization, **where)
    try:
        examples = loader.examples(student.model, "test").first(_TIMED_IMAGES)
    except NotApplicable:  # the accuracy's `refused` says it
        return []
    return [image.unsqueeze(0) for batch in examples.batches() for image in batch.images]
