"""A recovered forest as a tree to look at, the scores of methods, and whether they are sure."""

import math
from typing import Any

import altair as alt

from vitarium.lineage.files.forests import Info
from vitarium.studies.lineage.evaluated import EvaluatedForest, Forests, Status, about, short_name
from vitarium.studies.lineage.tables import MEANINGS
from vitarium.studies.report.figures import BLUE, LINE, PALETTE, Figure, categories, data
from vitarium.studies.report.tables import Table
from vitarium.studies.report.texts import Texts
from vitarium.studies.report.trees import Cells, Node, TreeLayout, tree_figure

texts = Texts("lineage", "figures")
TRUE_FOREST = "the truth"
MAX_MODELS = 1500  # models that are drawn; of more, the largest families
_COLORS = {
    Status.RIGHT: BLUE,
    Status.TIED: PALETTE[5],
    Status.WRONG: PALETTE[1],
    Status.MISSED: PALETTE[3],
    Status.UNKNOWN: BLUE,
}
_TOOLTIP = {
    "name": "model",
    **{key: key for key in ("stage", "factors", "epoch", "accuracy", "file")},
    "kind": "made by",
    "parents": "parent",
    "true": "true parent",
    "family": "tree",
}


def tree(forests: Forests, info: Info, *, max_models: int = MAX_MODELS) -> Figure:
    """A row per model; with several forests, a menu chooses between them."""
    first = next(iter(forests.values()))
    heading, *lines = texts.lines("tree")
    if first.truth is not None:
        lines.append(texts("tree_missed"))
    if len(forests) > 1:
        truth = ", and the true one" if first.truth is not None else ""
        lines.append(texts("tree_menu", truth=truth))
    if len(first.rows) > max_models:
        drawn = len(drawn_rows(first, max_models))
        lines.append(texts("tree_cut", drawn=drawn, models=len(first.rows)))
    return tree_figure(
        tree_layout(forests, info, max_models),
        "tree",
        heading,
        " ".join(lines),
        colors=_COLORS,
        marks=[(0.0, "0 %"), (0.5, "50 % sure"), (1.0, "100 %")],
        tooltip=_TOOLTIP,
    )


def drawn_rows(forest: EvaluatedForest, max_models: int = MAX_MODELS) -> list[Node]:
    """Whole families from the largest on, as many as there is room for; of the first, as much."""
    if len(forest.rows) <= max_models:
        return forest.rows
    rows = forest.rows[:max_models]
    cut = forest.families[forest.rows[max_models].model]
    return [row for row in rows if forest.families[row.model] != cut] or rows


def tree_layout(forests: Forests, info: Info, max_models: int = MAX_MODELS) -> TreeLayout:
    drawn = {name: drawn_rows(forest, max_models) for name, forest in forests.items()}
    curved = [n for n, f in forests.items() if f.mixtures or any(not link.edge for link in f.links)]
    layout = TreeLayout(drawn, curved)
    for name, forest in forests.items():
        nodes = {node.model: node for node in drawn[name]}
        for model, node in nodes.items():
            confidence = forest.confidence(model)
            cells = _cells(forest, model, confidence) | about(info.get(model, {}))
            layout.add_node(name, node, confidence, **cells)
        # to the further parents of mixtures, and true edges that were missed
        for number, link in enumerate(forest.links):
            parent, child = nodes.get(link.parent), nodes.get(link.child)
            if parent and child and not (link.edge and child.parent == link.parent):
                strength = _strength(link.edge.confidence) if link.edge else 0.9
                cells = {"link": number, "status": link.status, "strength": strength}
                layout.add_curve(name, parent, child, **cells)
    return layout


def _cells(forest: EvaluatedForest, model: str, confidence: float) -> Cells:
    parents, texts = forest.forest.parents[model], []
    for edge in parents.values():
        parts = [f"{100 * edge.confidence:.0f} % sure"] if math.isfinite(edge.confidence) else []
        parts += [f"{100 * edge.share:.0f} % of it"] if edge.share < 1 else []
        texts.append(short_name(edge.parent) + (f" ({', '.join(parts)})" if parts else ""))
    root = f" ({100 * confidence:.0f} % sure)" if math.isfinite(confidence) else ""
    cells = {
        "status": forest.statuses[model],
        "role": ("root", "model", "mixture of several")[min(len(parents), 2)],
        "strength": _strength(confidence),
        "label": f"{short_name(model)}  {forest.descriptions.get(model, '')}".strip(),
        "name": model,
        "parents": ", ".join(texts) or f"none: a root{root}",
        "family": forest.families[model] + 1,
    }
    true = forest.true_parents(model)
    if true is not None:
        cells["true"] = ", ".join(map(short_name, true)) or "none: a root"
    if kinds := {edge.kind for edge in parents.values()} - {"trained"}:
        cells["kind"] = ", ".join(sorted(kinds)).replace("_", " ")
    return cells


def _strength(confidence: float) -> float:
    return 0.3 + 0.7 * confidence if math.isfinite(confidence) else 1.0


def scores(forests: Forests) -> Figure | None:
    rows: list[dict[str, Any]] = [
        {"score": heading, "method": method, "value": value}
        for name, (heading, _) in MEANINGS.items()
        for method, forest in forests.items()
        if (value := forest.score(name)) is not None
    ]
    if not rows:
        return None
    order, methods = list(dict.fromkeys(row["score"] for row in rows)), list(forests)
    scale = alt.Scale(domain=[min(0.0, *(row["value"] for row in rows)), 1])
    offset = alt.YOffset("method:N", sort=methods, scale=alt.Scale(paddingOuter=0.9))
    titles = alt.Axis(title=None, labelLimit=220, grid=False)
    circles = alt.Chart(data(rows)).mark_circle(size=110, opacity=0.9)
    chart = circles.encode(
        x=alt.X("value:Q", axis=alt.Axis(title=None, format=".0%"), scale=scale),
        y=alt.Y("score:N", sort=order, axis=titles),
        color=categories("method", methods),
        yOffset=offset,
        tooltip=["method:N", "score:N", alt.Tooltip("value:Q", format=".1%")],
    ).properties(width=420, height=max(34 * len(order), 80))
    return texts.figure("scores", "scores", chart, wide=False)


def calibration(table: Table) -> Figure | None:
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
    bars = base.mark_rule(color=BLUE, opacity=0.6)
    bars = bars.encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
    area = alt.Scale(type="sqrt", range=[40, 320])
    tips = [alt.Tooltip("bin:N", title="confidence"), alt.Tooltip("edges:Q")]
    tips.append(alt.Tooltip("share:Q", title="right", format=".1%"))
    dots = base.mark_circle(color=BLUE, opacity=1)
    dots = dots.encode(x=x, y=y, size=alt.Size("edges:Q", scale=area, legend=None), tooltip=tips)
    chart = alt.layer(diagonal, bars, dots).properties(width=300, height=300)
    return texts.figure("calibration", "calibration", chart, wide=False)
