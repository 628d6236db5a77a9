"""Which measures studies show, and how: facts of the measures."""

from typing import Literal

from vitarium.core.registry import get, plugins

ACCURACY, STATISTICS = "accuracy", "layer_statistics"
_BY_NEEDS = ("predictions", "features", "weights", "model")


def shown_measures(of: Literal["model", "pair"]) -> list[str]:
    """Names of the measures that are registered with `studies=True`, the accuracy first.

    Those of models have one number per model; the statistics of layers are not among them.
    """
    order = [
        (name != ACCURACY, _BY_NEEDS.index(plugin.facts["needs"]), name)
        for name, plugin in plugins("measure").items()
        if plugin.facts["studies"] and plugin.facts["of"] == of and name != STATISTICS
    ]
    return [name for *_, name in sorted(order)]


def heat_mapped() -> list[str]:
    """Names of the measures of pairs that are drawn as a matrix."""
    return [name for name in shown_measures("pair") if get("measure", name).facts["heat_map"]]


def is_distance(measure: str) -> bool:
    """Whether a measure is small for models that are alike."""
    return get("measure", measure).facts["as_distance"] in ("identity", "square")
