"""Scores of recovered forests: what each means, all of them side by side, and calibration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from statsmodels.stats.proportion import proportion_confint

from vitarium.lineage.base import Forest
from vitarium.lineage.recover import Recovered
from vitarium.lineage.scores import Scores
from vitarium.studies.lineage.evaluated import RIGHT, TIED, UNKNOWN, EvaluatedForest
from vitarium.studies.report.figures import LINE, PALETTE, Figure, categories, data
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import SIGN, Quantity
from vitarium.studies.statistics.bootstrap import Estimate

MEANINGS = {
    "node_accuracy": ("right parents", "models with exactly their true parents, roots with none"),
    "node_accuracy_up_to_ties": (
        "right parents, up to ties",
        "the same, where models that their weights do not tell apart stand for each other",
    ),
    "parent_accuracy": ("right parents of children", "the same of models that have true parents"),
    "edge_precision": ("edges that are right", "of the recovered edges, those that are true"),
    "edge_recall": ("edges that are found", "of the true edges, those that were recovered"),
    "undirected_edge_accuracy": (
        "edges, whichever way",
        "of the true edges, those that were recovered in this direction or the other",
    ),
    "root_accuracy": ("right roots", "true trees whose true roots have no parent in the forest"),
    "adjusted_rand_index": (
        "trees (ARI)",
        "how well the trees agree as groups of models: 100 where they are the same, about 0 by "
        "chance (adjusted Rand index)",
    ),
    "mixtures_found": ("mixtures found", "true mixtures of which all parents were found"),
    "mother_accuracy": (
        "as MoTHer scores",
        "of a tree's true edges, those that were recovered; mean over the trees, as MoTHer's "
        "authors report it",
    ),
}
"""By score: its short name, and what it is the share of."""
MIN_EDGES = 20
"""Edges of which the truth is known from which on confidences are compared with what is right."""
_BIN_EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


def score_value(scores: Scores | None, name: str) -> float | None:
    """None where there is nothing to count."""
    value = getattr(scores, name, None)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def scores_by_method(recovered: Recovered) -> dict[str, Scores | None]:
    """The chosen method first."""
    return {
        recovered.forest.method: recovered.scores,
        **{name: scores for name, (_, scores) in recovered.others.items()},
    }


def comparison(recovered: Recovered, forests: Mapping[str, EvaluatedForest]) -> Table:
    """A column per method: its scores, and how its forest differs from the first."""
    scores = scores_by_method(recovered)
    first = next(iter(forests.values())).forest

    def row(name: str, values: Sequence[Any], meaning: str) -> dict[str, Any]:
        return {"": name, **dict(zip(forests, values, strict=True)), "the share of": meaning}

    def shares(values: Sequence[float | None]) -> list[Any]:
        return [None if value is None else Quantity(value, "sure") for value in values]

    evaluated = list(forests.values())
    rows = [
        row(meaning[0], shares([score_value(scores[m], name) for m in forests]), meaning[1])
        for name, meaning in MEANINGS.items()
        if any(score_value(of_method, name) is not None for of_method in scores.values())
    ]
    same = f"models with exactly the parents that `{first.method}` gives them"
    rows += [
        row("same parents", shares([_same_parents(first, e.forest) for e in evaluated]), same),
        row("trees", [len(e.forest.trees) for e in evaluated], ""),
        row("roots", [len(e.roots) for e in evaluated], "models without parents"),
        row("edges", [len(e.forest.edges) for e in evaluated], "from parents to children"),
    ]
    if len(forests) < 2 and recovered.scores is None:
        rows = []
    return Table.of("Methods beside each other", rows, wrap=True)


def _same_parents(first: Forest, second: Forest) -> float:
    same = (set(first.parents[model]) == set(second.parents[model]) for model in first.models)
    return sum(same) / len(first.models)


def score_figure(recovered: Recovered) -> Figure | None:
    """All scores of all methods."""
    scores = scores_by_method(recovered)
    rows: list[dict[str, Any]] = [
        {"score": MEANINGS[name][0], "method": method, "value": value}
        for name in MEANINGS
        for method, of_method in scores.items()
        if (value := score_value(of_method, name)) is not None
    ]
    if not rows:
        return None
    order = list(dict.fromkeys(row["score"] for row in rows))
    low = min(0.0, *(row["value"] for row in rows))
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("score:N", sort=order, axis=alt.Axis(title=None, labelLimit=220, grid=False))
    )
    chart = base.mark_circle(size=110, opacity=0.9).encode(
        x=alt.X(
            "value:Q", axis=alt.Axis(title=None, format=".0%"), scale=alt.Scale(domain=[low, 1])
        ),
        color=categories("method", list(scores)),
        yOffset=alt.YOffset("method:N", sort=list(scores), scale=alt.Scale(paddingOuter=0.9)),
        tooltip=["method:N", "score:N", alt.Tooltip("value:Q", format=".1%")],
    )
    return Figure(
        "scores",
        "How good each method is",
        "Every score of every method; 100 % is best.",
        chart.properties(width=420, height=max(34 * len(order), 80)),
        wide=False,
    )


def calibration(forest: EvaluatedForest) -> Table:
    """Edges by confidence, with how many are right; empty where too few are known."""
    edges = [(edge.confidence, status) for edge, status in forest.edges if status != UNKNOWN]
    confidences = np.array([confidence for confidence, _ in edges])
    right = np.array([status in (RIGHT, TIED) for _, status in edges])
    # the highest bin is closed: a confidence of 1 is in it
    last = len(_BIN_EDGES) - 2
    bins = np.clip(np.searchsorted(_BIN_EDGES, confidences, side="right") - 1, 0, last)
    rows = []
    for number in sorted(set(bins.tolist())) if len(edges) >= MIN_EDGES else ():
        inside = bins == number
        low, high = _BIN_EDGES[number : number + 2]
        wilson = proportion_confint(right[inside].sum(), inside.sum(), method="wilson")
        low_share, high_share = (round(float(bound), 12) for bound in wilson)
        share = Estimate(float(right[inside].mean()), low_share, high_share)
        rows.append(
            {
                "confidence": f"{100 * low:.0f} to {100 * high:.0f}{SIGN}",
                "edges": int(inside.sum()),
                "right": int(right[inside].sum()),
                "share that is right": share,
                "confidence, on average": float(confidences[inside].mean()),
            }
        )
    units = {"share that is right": "sure", "confidence, on average": "sure"}
    note = "With Wilson's intervals of 95 %."
    return Table.of("Right edges by confidence", rows, note, units=units)


def calibration_figure(table: Table) -> Figure | None:
    """Whether edges are as often right as their confidences say."""
    if table.data.empty:
        return None
    columns = {
        "confidence": "bin",
        "share that is right": "share",
        "share that is right low": "low",
        "share that is right high": "high",
        "confidence, on average": "mean",
    }
    base = alt.Chart(data(table.frame.rename(columns=columns)))
    scale = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("mean:Q", scale=scale, axis=alt.Axis(title="confidence, on average", format=".0%"))
    y = alt.Y("share:Q", scale=scale, axis=alt.Axis(title="edges that are right", format=".0%"))
    ends = alt.Chart(data([{"mean": 0.0, "share": 0.0}, {"mean": 1.0, "share": 1.0}]))
    diagonal = ends.mark_line(color=LINE, strokeDash=[4, 3]).encode(x=x, y=y)
    bars = base.mark_rule(color=PALETTE[0], opacity=0.6).encode(
        x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q"
    )
    dots = base.mark_circle(color=PALETTE[0], opacity=1).encode(
        x=x,
        y=y,
        size=alt.Size("edges:Q", scale=alt.Scale(type="sqrt", range=[40, 320]), legend=None),
        tooltip=[
            alt.Tooltip("bin:N", title="confidence"),
            alt.Tooltip("edges:Q"),
            alt.Tooltip("share:Q", title="right", format=".1%"),
        ],
    )
    return Figure(
        "calibration",
        "Are confidences right?",
        "A point per range of confidence, larger for more edges, with Wilson's intervals of 95 %. "
        "On the dashed line, edges are as often right as is said.",
        alt.layer(diagonal, bars, dots).properties(width=300, height=300),
        wide=False,
    )
