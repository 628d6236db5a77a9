"""Measure what the study of diversity needs; what is known already is only read."""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from vitarium.core.errors import VitariumError, WriteFault
from vitarium.core.registry import get, plugins
from vitarium.studies.base import Population
from vitarium.studies.statistics.stages import COLUMNS, STATISTICS, shown_measures
from vitarium.zoo import Zoo

HESSIAN = "hessian_trace"


@dataclass(frozen=True)
class Unavailable:
    """A measure of which there is no value at all, why, and what computes it."""

    measure: str
    why: str
    command: str = ""


def measured(
    population: Population, *, hessian_models: int = 0, measure_missing: bool = True
) -> tuple[pd.DataFrame, list[Unavailable]]:
    """Values after the last epoch as `vitarium.measure` gives them, and the measures without any.

    The first `hessian_models` of each stage, in order of id, get a Hessian trace.
    """
    from vitarium.measures._runner.measure import measure

    zoo, ids = population.zoo, population.ids
    names = [*shown_measures("model"), *shown_measures("pair"), STATISTICS]
    quick = [name for name in names if name != HESSIAN and name in plugins("measure")]
    read = [HESSIAN] if measure_missing else [*quick, HESSIAN]
    frames = [recorded(zoo, ids, read, population.split)]
    jobs: list[tuple[list[str], Collection[str]]] = []
    if measure_missing:
        # weights first: they can be measured where the data are missing
        of_weights = [name for name in quick if get("measure", name).facts["needs"] == "weights"]
        jobs += [(of_weights, ids), ([name for name in quick if name not in of_weights], ids)]
    if hessian_models:
        # in order of id: as good as drawn, since ids are checksums
        stages = zoo.query("SELECT id, stage FROM models ORDER BY id")
        stages = stages[stages["id"].isin(list(ids))].groupby("stage")
        jobs.append(([HESSIAN], list(stages.head(hessian_models)["id"])))
    unavailable = []
    for job, models in jobs:
        try:
            table = measure(
                zoo,
                job,
                models=sorted(models),
                pairs="same-stage",
                split=population.split,
                num_images=population.num_images,
                device=population.device,
                data=population.data,
                normalization=population.normalization,
                data_dir=population.data_dir,
                progress=population.progress,
            )
            frames.append(table.reindex(columns=COLUMNS))
        except WriteFault:
            raise
        except VitariumError as error:
            unavailable += [Unavailable(name, str(error)) for name in job]
    values = pd.concat([frame for frame in frames if len(frame)] or [frames[0]])
    keys = [name for name in COLUMNS if name not in ("refused", "value")]
    values = values.drop_duplicates(keys, keep="last").reset_index(drop=True)
    explained = {entry.measure for entry in unavailable} | set(values["measure"])
    unavailable += [
        Unavailable(name, "not measured", f"vitarium measure {zoo.path} {name}")
        for name in (*quick, HESSIAN)
        if name not in explained
    ]
    return values, unavailable


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
