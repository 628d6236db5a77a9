"""Which measures studies show, and how numbers of pairs become distances: facts of the measures."""

from typing import Literal

import numpy as np

from vitarium.core.registry import Plugin, get, plugins
from vitarium.studies.statistics.bootstrap import Numbers

ACCURACY, STATISTICS = "accuracy", "layer_statistics"
_BY_NEEDS = ("predictions", "features", "weights", "model")


def shown_measures(of: Literal["model", "pair"]) -> list[str]:
    """Names of the measures that are registered with `studies=True`, the accuracy first.

    Those of models have one number per model; the statistics of layers are not among them.
    """
    chosen = [
        plugin
        for plugin in plugins("measure").values()
        if plugin.facts["studies"] and plugin.facts["of"] == of and plugin.name != STATISTICS
    ]
    return [plugin.name for plugin in sorted(chosen, key=_order)]


def _order(plugin: Plugin) -> tuple[bool, int, str]:
    return plugin.name != ACCURACY, _BY_NEEDS.index(plugin.facts["needs"]), plugin.name


def heat_mapped() -> list[str]:
    """Names of the measures of pairs that are drawn as a matrix."""
    return [name for name in shown_measures("pair") if get("measure", name).facts["heat_map"]]


def is_distance(measure: str) -> bool:
    """Whether a measure is small for models that are alike."""
    return get("measure", measure).facts["as_distance"] in ("identity", "square")


def has_distance(measure: str) -> bool:
    return get("measure", measure).facts["as_distance"] is not None


def as_squared_distances(measure: str, values: Numbers) -> Numbers:
    """Values of pairs as squared Euclidean distances, up to a constant, both [models, models].

    Of one-hot predictions, of square roots of probabilities (about), of normalised Gram matrices,
    of weights, of their directions: shares of variance do not depend on the constant.
    """
    match get("measure", measure).facts["as_distance"]:
        case "one_minus":
            squared = 1 - values
        case "square":
            squared = values**2
        case "identity":
            squared = values
        case _:
            raise ValueError(f"measure '{measure}' has no distance")
    squared = np.clip(squared, 0, None)
    np.fill_diagonal(squared, 0)
    return squared
