"""Measure what the study of diversity needs; what is known already is only read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd

from vitarium.core.errors import VitariumError, WriteFault
from vitarium.core.registry import get, plugins
from vitarium.studies.base import Population
from vitarium.studies.statistics.measures import STATISTICS, shown_measures
from vitarium.studies.statistics.stages import COLUMNS
from vitarium.zoo import Zoo

HESSIAN = "hessian_trace"


@dataclass(frozen=True)
class Unavailable:
    """A measure of which there is no value at all, why, and what computes it."""

    measure: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Measured:
    """Values as `vitarium.measure` gives them, and the measures without any."""

    values: pd.DataFrame
    unavailable: Sequence[Unavailable] = ()


def measured(
    population: Population, *, hessian_models: int = 0, measure_missing: bool = True
) -> Measured:
    """Measure after the last epoch, on the split or on weights alone.

    Args:
        hessian_models: so many of each stage get a Hessian trace, the first in order of id.
        measure_missing: otherwise, only what is known is read.
    """
    zoo, ids = population.zoo, population.ids
    names = [*shown_measures("model"), *shown_measures("pair"), STATISTICS]
    quick = [name for name in names if name != HESSIAN and name in plugins("measure")]
    frames = [
        recorded(zoo, ids, [HESSIAN] if measure_missing else [*quick, HESSIAN], population.split)
    ]
    jobs: list[tuple[list[str], Collection[str]]] = []
    if measure_missing:
        # weights first: they can be measured where the data are missing
        of_weights = [name for name in quick if get("measure", name).facts["needs"] == "weights"]
        jobs += [(of_weights, ids), ([name for name in quick if name not in of_weights], ids)]
    if hessian_models:
        jobs.append(([HESSIAN], _first_of_each_stage(zoo, ids, hessian_models)))
    unavailable = []
    for job, models in jobs:
        try:
            frames.append(_measure(population, job, models))
        except WriteFault:
            raise
        except VitariumError as error:
            unavailable += [Unavailable(name, str(error)) for name in job]
    values = pd.concat([frame for frame in frames if len(frame)] or [frames[0]])
    keys = [name for name in COLUMNS if name not in ("refused", "value")]
    values = values.drop_duplicates(keys, keep="last").reset_index(drop=True)
    explained = {entry.measure for entry in unavailable} | set(values["measure"])
    command = f"vitarium measure {zoo.path} "
    unavailable += [
        Unavailable(name, "not measured", command + name)
        for name in (*quick, HESSIAN)
        if name not in explained
    ]
    return Measured(values, unavailable)


def recorded(zoo: Zoo, ids: Collection[str], names: Collection[str], split: str) -> pd.DataFrame:
    """Values that the zoo keeps of the models' last epochs, on a split or without images.

    Of a measure that was taken with several settings, those with the most values.
    """
    records = zoo.query("SELECT * FROM records")
    for column, default in (("part", ""), ("split", ""), ("other", None), ("other_epoch", None)):
        if column not in records:
            records[column] = default
    last = zoo.query("SELECT id, last_epoch FROM models").set_index("id")["last_epoch"]
    single = records["other"].isna()
    records = records[
        records["measure"].isin(list(names))
        & records["split"].fillna("").isin(["", split])
        & records["model"].isin(list(ids))
        & (single | records["other"].isin(list(ids)))
        & (records["epoch"] == records["model"].map(last))
        & (single | (records["other_epoch"] == records["other"].map(last)))
    ]
    frames = []
    for _, rows in records.groupby("measure"):
        common = rows["settings"].value_counts().sort_index().idxmax()
        frames.append(rows[rows["settings"] == common])
    return (pd.concat(frames) if frames else records).assign(refused="").reindex(columns=COLUMNS)


def _measure(population: Population, names: Sequence[str], ids: Collection[str]) -> pd.DataFrame:
    from vitarium.measures._runner.measure import measure

    table = measure(
        population.zoo,
        names,
        models=sorted(ids),
        pairs="same-stage",
        split=population.split,
        num_images=population.images,
        device=population.device,
        data_dir=population.data_dir,
        progress=SimpleNamespace(step=population.progress),
    )
    return table.reindex(columns=COLUMNS)


def _first_of_each_stage(zoo: Zoo, ids: Collection[str], count: int) -> list[str]:
    """In order of id: as good as drawn, since ids are checksums."""
    stages = zoo.query("SELECT id, stage FROM models ORDER BY id")
    stages = stages[stages["id"].isin(list(ids))]
    return list(stages.groupby("stage").head(count)["id"])
