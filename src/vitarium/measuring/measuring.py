"""Measure the models of a zoo; a number that is there already is not measured again."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from vitarium.registry import Section, choose
from vitarium.store import ModelFolder, Record, Zoo

if TYPE_CHECKING:
    import pandas as pd


def measure(
    zoo: Zoo,
    name: str,
    *,
    models: Iterable[str] | None = None,
    epochs: Literal["last", "all"] | int = "last",
    **settings: Any,
) -> "pd.DataFrame":
    """Measure models by a registered measure, or read what was measured before.

    A measure is a function (config, weights) -> number, where weights are a state_dict.

    Args:
        models: ids, or beginnings of them; None: every model.
        epochs: the last kept epoch, all kept ones, or one by its number.
        settings: of the measure.

    Returns one row per model and epoch: model, epoch, measure, value, unit.
    Raises UnknownName, InvalidConfig, InvalidInput for an epoch that is not kept, CorruptFile.
    """
    import pandas as pd

    chosen = choose("measure", name, **settings)
    ids = zoo.ids() if models is None else [zoo.find(model) for model in models]
    found = [(id, record) for id in ids for record in _of_model(zoo.folder(id), chosen, epochs)]
    columns = ["model", "epoch", "measure", "value", "unit"]
    rows = [(id, r.epoch, r.measure, r.value, r.unit) for id, r in found]
    return pd.DataFrame(rows, columns=columns)


def _of_model(
    folder: ModelFolder, chosen: Section, epochs: Literal["last", "all"] | int
) -> list[Record]:
    settings = chosen.config.factors()
    known = {
        record.epoch: record
        for record in folder.records()
        if record.measure == chosen.name and record.settings == settings
    }
    wanted = _numbers(folder, epochs)
    new = {
        epoch: Record(
            epoch,
            chosen.name,
            settings,
            float(chosen(folder.weights(epoch))),
            chosen.plugin.facts["unit"],
        )
        for epoch in wanted
        if epoch not in known
    }
    if new:
        folder.add_records(list(new.values()))
    return [{**known, **new}[epoch] for epoch in wanted]


def _numbers(folder: ModelFolder, epochs: Literal["last", "all"] | int) -> list[int]:
    if epochs == "all":
        return [epoch.number for epoch in folder.epochs() if epoch.checkpoint]
    return [folder.checkpoint(-1 if epochs == "last" else epochs)[0]]
