"""What a study wants measured, and what comes of it where data, libraries or time are missing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from vitarium.core.errors import VitariumError, WriteFault
from vitarium.core.registry import plugins
from vitarium.data.loader import SplitName
from vitarium.studies.statistics.population import OF_MODELS, OF_PAIRS, STATISTICS
from vitarium.zoo import Zoo

Report = Callable[[str, int, int], None]
"""Called with what is done, and how much of how much."""
HESSIAN = "hessian_trace"
COLUMNS = ["model", "epoch", "other", "other_epoch", "measure", "part", "value", "unit", "refused"]
OF_WEIGHTS = {
    "weight_norm",
    "distance_from_parent",
    "distance_from_start",
    "layer_statistics",
    "weight_l2",
    "weight_cosine",
}
"""Measures that need no images, and so can be had where the data cannot."""


@dataclass(frozen=True)
class Request:
    """On what to measure; as `vitarium.measure`."""

    split: SplitName = "test"
    images: int | None = None
    device: str = "auto"
    data_dir: Path | None = None


@dataclass(frozen=True)
class Absent:
    """A measure of which there is nothing at all, why, and what computes it."""

    measure: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Gathered:
    """Values as `vitarium.measure` gives them, and what there is none of."""

    measured: pd.DataFrame
    absent: Sequence[Absent] = field(default_factory=tuple)
    split: str = "test"


def gather(
    zoo: Zoo,
    ids: Collection[str],
    request: Request,
    *,
    hessian_models: int = 0,
    measure_missing: bool = True,
    report: Report = lambda what, done, of: None,
) -> Gathered:
    """Measure what a study of diversity needs, after the last epoch; what is known is only read.

    Args:
        hessian_models: so many of each stage get a Hessian trace, the first in order of id.
        measure_missing: otherwise, only what is known is given.
    """
    there = plugins("measure")
    quick = [name for name in (*OF_MODELS, *OF_PAIRS, STATISTICS) if name != HESSIAN]
    absent = [
        Absent(name, "this version has no such measure") for name in quick if name not in there
    ]
    frames = [known(zoo, ids, [HESSIAN] if measure_missing else [*quick, HESSIAN], request.split)]
    if measure_missing:
        parts = (
            [n for n in quick if (n in OF_WEIGHTS) is of_weights] for of_weights in (True, False)
        )
        for names in parts:
            names = [name for name in names if name in there]
            try:
                frames.append(_measured(zoo, names, ids, request, report))
            except WriteFault:
                raise
            except VitariumError as error:
                absent += [Absent(name, str(error)) for name in names]
    if hessian_models and HESSIAN in there:
        chosen = _some_of_each_stage(zoo, ids, hessian_models)
        try:
            frames.append(_measured(zoo, [HESSIAN], chosen, request, report))
        except WriteFault:
            raise
        except VitariumError as error:
            absent.append(Absent(HESSIAN, str(error)))
    measured = pd.concat([frame for frame in frames if len(frame)] or [frames[0]])
    columns = [name for name in COLUMNS if name != "refused"]
    measured = measured.drop_duplicates([name for name in columns if name != "value"], keep="last")
    told = {one.measure for one in absent}
    command = f"vitarium measure {zoo.path} "
    for name in (*quick, HESSIAN):
        if name not in told and name not in set(measured["measure"]):
            absent.append(Absent(name, "not measured", command + name))
    return Gathered(measured.reset_index(drop=True), absent, request.split)


def known(zoo: Zoo, ids: Collection[str], names: Collection[str], split: str) -> pd.DataFrame:
    """What was measured before of the models' last epochs, on a split or without images.

    Of a measure that was taken with several settings, those with the most values.
    """
    found = zoo.query("SELECT * FROM records")
    for column, otherwise in (("part", ""), ("split", ""), ("other", None), ("other_epoch", None)):
        if column not in found:
            found[column] = otherwise
    last = zoo.query("SELECT id, last_epoch FROM models").set_index("id")["last_epoch"]
    alone = found["other"].isna()
    chosen = found[
        found["measure"].isin(list(names))
        & found["split"].fillna("").isin(["", split])
        & found["model"].isin(list(ids))
        & (alone | found["other"].isin(list(ids)))
        & (found["epoch"] == found["model"].map(last))
        & (alone | (found["other_epoch"] == found["other"].map(last)))
    ]
    kept = []
    for _, rows in chosen.groupby("measure"):
        common = rows["settings"].value_counts().sort_index().idxmax()
        kept.append(rows[rows["settings"] == common])
    known = pd.concat(kept) if kept else chosen
    return known.assign(refused="").reindex(columns=COLUMNS)


def _measured(
    zoo: Zoo, names: Sequence[str], ids: Collection[str], request: Request, report: Report
) -> pd.DataFrame:
    from vitarium.measures._runner.measure import measure

    found = measure(
        zoo,
        names,
        models=sorted(ids),
        pairs="same-stage",
        split=request.split,
        images=request.images,
        device=request.device,
        data_dir=request.data_dir,
        report=partial(report, "measuring"),
    )
    return found.reindex(columns=COLUMNS)


def _some_of_each_stage(zoo: Zoo, ids: Collection[str], count: int) -> list[str]:
    """The first in order of id: as good as drawn, since ids are checksums."""
    stages = zoo.query("SELECT id, stage FROM models ORDER BY id")
    stages = stages[stages["id"].isin(list(ids))]
    return list(stages.groupby("stage").head(count)["id"])
