"""Scores of recovered forests: what each means, all of them side by side, and calibration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from statsmodels.stats.proportion import proportion_confint

from vitarium.lineage.forest import Forest
from vitarium.lineage.recover import Recovered
from vitarium.lineage.scores import Scores
from vitarium.studies.lineage.rows import RIGHT, TIED, UNKNOWN, Judged
from vitarium.studies.report.figures import PALETTE, Figure, data
from vitarium.studies.report.page import Table
from vitarium.studies.report.text import DASH, SIGN

MEANINGS = {
    "node_accuracy": ("right parents", "models with exactly their true parents, roots with none"),
    "node_accuracy_up_to_ties": (
        "right parents, up to ties",
        "the same, where models that their weights do not tell apart stand in each other's place",
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
FEWEST = 20
"""Edges of which the truth is known from which on confidences are compared with what is right."""
_BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


def value(scores: Scores | None, name: str) -> float | None:
    """None where there is nothing to count."""
    found = getattr(scores, name, None)
    return found if isinstance(found, int | float) and math.isfinite(found) else None


def percent(value: float | None) -> str:
    if value is None:
        return DASH
    told = 100 * value if value == 1 else min(100 * value, 99.9)  # not all is not 100 %
    return f"{told:.1f}{SIGN}".replace("-", "\u2212")


def known(scores: Sequence[Scores | None]) -> list[str]:
    """Scores that at least one method has a number for."""
    return [name for name in MEANINGS if any(value(each, name) is not None for each in scores)]


def comparison(recovered: Recovered, forests: Mapping[str, Judged]) -> Table:
    """A column per method: its scores, and how its forest differs from the first."""
    scores = scores_of(recovered)
    first = next(iter(forests.values())).forest
    rows = [
        [MEANINGS[name][0], *(percent(value(scores[method], name)) for method in forests), what]
        for name in known(list(scores.values()))
        for what in MEANINGS[name][1:]
    ]
    same = f"models with exactly the parents that `{first.method}` gives them"
    each = forests.values()
    rows += [
        ["same parents", *(percent(_same(first, one.forest)) for one in each), same],
        ["trees", *(str(len(one.forest.trees)) for one in each), ""],
        ["roots", *(str(len(one.roots)) for one in each), "models without parents"],
        ["edges", *(str(len(one.forest.edges)) for one in each), "from parents to children"],
    ]
    return Table("Methods beside each other", ["", *forests, "the share of"], rows, wrap=True)


def _same(one: Forest, other: Forest) -> float:
    pairs = (set(one.parents[model]) == set(other.parents[model]) for model in one.models)
    return sum(pairs) / len(one.models)


def scores_of(recovered: Recovered) -> dict[str, Scores | None]:
    """By method, the first the one that was asked for."""
    return {
        recovered.forest.method: recovered.scores,
        **{name: scores for name, (_, scores) in recovered.others.items()},
    }


def figure(recovered: Recovered) -> Figure | None:
    """All scores of all methods."""
    scores = scores_of(recovered)
    told = known(list(scores.values()))
    rows: list[dict[str, Any]] = [
        {"score": MEANINGS[score][0], "method": method, "value": value(of, score)}
        for score in told
        for method, of in scores.items()
        if value(of, score) is not None
    ]
    if not rows:
        return None
    order = [MEANINGS[score][0] for score in told]
    low = min(0.0, *(row["value"] for row in rows))
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("score:N", sort=order, axis=alt.Axis(title=None, labelLimit=220, grid=False))
    )
    x = alt.X("value:Q", axis=alt.Axis(title=None, format=".0%"), scale=alt.Scale(domain=[low, 1]))
    colour = alt.Color(
        "method:N",
        sort=list(scores),
        scale=alt.Scale(domain=list(scores), range=PALETTE),
        legend=alt.Legend(title=None, orient="top", symbolType="circle", symbolOpacity=1),
    )
    chart = base.mark_circle(size=110, opacity=0.9).encode(
        x=x,
        color=colour,
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


@dataclass(frozen=True)
class Bin:
    """Edges of like confidence."""

    low: float
    high: float
    edges: int
    right: int
    confidence: float
    """Their mean."""

    @property
    def share(self) -> float:
        """Of them that is right."""
        return self.right / self.edges

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %."""
        low, high = proportion_confint(self.right, self.edges, method="wilson")
        return float(low), float(high)


def bins(judged: Judged) -> list[Bin]:
    """Edges by confidence, with how many are right; none where too few are known."""
    edges = [(edge.confidence, status) for edge, status in judged.edges if status != UNKNOWN]
    if len(edges) < FEWEST:
        return []
    confidences = np.array([confidence for confidence, _ in edges])
    right = np.array([status in (RIGHT, TIED) for _, status in edges])
    # the highest bin is closed: a confidence of 1 is in it
    places = np.clip(np.searchsorted(_BINS, confidences, side="right") - 1, 0, len(_BINS) - 2)
    return [
        Bin(
            _BINS[place],
            _BINS[place + 1],
            int((places == place).sum()),
            int(right[places == place].sum()),
            float(confidences[places == place].mean()),
        )
        for place in sorted(set(places.tolist()))
    ]


def calibration(found: Sequence[Bin]) -> tuple[Figure, Table] | None:
    """Whether edges are as often right as their confidences say."""
    if not found:
        return None
    rows = [
        {
            "said": one.confidence,
            "share": one.share,
            "low": one.interval[0],
            "high": one.interval[1],
            "edges": one.edges,
            "bin": _named(one),
        }
        for one in found
    ]
    scale = alt.Scale(domain=[0, 1], nice=False)
    ends = data([{"said": 0.0, "share": 0.0}, {"said": 1.0, "share": 1.0}])
    x = alt.X("said:Q", scale=scale, axis=alt.Axis(title="confidence, on average", format=".0%"))
    y = alt.Y("share:Q", scale=scale, axis=alt.Axis(title="edges that are right", format=".0%"))
    diagonal = alt.Chart(ends).mark_line(color="#8b95a3", strokeDash=[4, 3]).encode(x=x, y=y)
    base = alt.Chart(data(rows))
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
    drawn = Figure(
        "calibration",
        "Are confidences right?",
        "A point per range of confidence, larger for more edges, with Wilson's intervals of 95 %. "
        "On the dashed line, edges are as often right as is said.",
        alt.layer(diagonal, bars, dots).properties(width=300, height=300),
        wide=False,
    )
    table = Table(
        "Right edges by confidence",
        ["confidence", "edges", "right", "share that is right", "confidence, on average"],
        [
            [
                _named(one),
                str(one.edges),
                str(one.right),
                percent(one.share),
                percent(one.confidence),
            ]
            for one in found
        ],
    )
    return drawn, table


def _named(one: Bin) -> str:
    return f"{100 * one.low:.0f} to {100 * one.high:.0f}{SIGN}"
