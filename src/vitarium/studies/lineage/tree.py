"""A recovered forest as a tree to look at: right, wrong and missed edges, and how sure each is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vitarium.lineage.base import Edge
from vitarium.studies.lineage.evaluated import (
    MISSED,
    RIGHT,
    TIED,
    UNKNOWN,
    WRONG,
    EvaluatedForest,
    about,
    short_name,
)
from vitarium.studies.report.figures import PALETTE, Figure
from vitarium.studies.report.trees import Cells, Node, TreeLayout, TreeRows, tree_chart

TRUE_FOREST = "the truth"
MAX_MODELS = 1500
"""Models that are drawn; of more, the largest families."""
_COLORS = {
    RIGHT: PALETTE[0],
    TIED: PALETTE[5],
    WRONG: PALETTE[1],
    MISSED: PALETTE[3],
    UNKNOWN: PALETTE[0],
}
_TOOLTIP = {
    "name": "model",
    "stage": "stage",
    "factors": "factors",
    "epoch": "epoch",
    "accuracy": "accuracy",
    "file": "file",
    "kind": "made by",
    "parents": "parent",
    "true": "true parent",
    "family": "tree",
}


def tree(
    forests: Mapping[str, EvaluatedForest],
    info: Mapping[str, Mapping[str, Any]],
    *,
    max_models: int = MAX_MODELS,
) -> Figure:
    """A row per model; with several forests, a menu chooses between them."""
    rows, layout = tree_rows(forests, info, max_models)
    chart = tree_chart(
        rows,
        layout,
        forests=list(forests),
        colors=_COLORS,
        marks=[(0.0, "0 %"), (0.5, "50 % sure"), (1.0, "100 %")],
        tooltip=_TOOLTIP,
    )
    caption = _caption(next(iter(forests.values())), len(forests), max_models)
    return Figure("tree", "The recovered forest", caption, chart, datasets=rows.datasets)


def drawn_rows(forest: EvaluatedForest, max_models: int = MAX_MODELS) -> list[Node]:
    """Whole families from the largest on, as many as there is room for; of the first, as much."""
    if len(forest.rows) <= max_models:
        return forest.rows
    rows = forest.rows[:max_models]
    cut = forest.families[forest.rows[max_models].model]
    return [row for row in rows if forest.families[row.model] != cut] or rows


def tree_rows(
    forests: Mapping[str, EvaluatedForest],
    info: Mapping[str, Mapping[str, Any]],
    max_models: int = MAX_MODELS,
) -> tuple[TreeRows, TreeLayout]:
    """Of every method's forest."""
    drawn = {name: drawn_rows(forest, max_models) for name, forest in forests.items()}
    curved = [
        name
        for name, forest in forests.items()
        if forest.mixtures or any(link.edge is None for link in forest.links)
    ]
    layout, rows = TreeLayout(drawn, curved), TreeRows()
    for name, forest in forests.items():
        nodes = {node.model: node for node in drawn[name]}
        for model, node in nodes.items():
            confidence = forest.confidence(model)
            cells = _cells(forest, model, confidence) | about(info.get(model, {}))
            rows.nodes.append(layout.node(name, node, confidence, **cells))
        rows.trunks += layout.trunks(name, nodes)
        rows.curves += _curves(name, forest, nodes, layout)
    return rows, layout


def _cells(forest: EvaluatedForest, model: str, confidence: float) -> Cells:
    parents = forest.forest.parents[model]
    true = forest.true_parents(model)
    root = f" ({100 * confidence:.0f} % sure)" if math.isfinite(confidence) else ""
    cells = {
        "status": forest.statuses[model],
        "role": ("root", "model", "mixture of several")[min(len(parents), 2)],
        "strength": _strength(confidence),
        "label": f"{short_name(model)}  {forest.descriptions.get(model, '')}".strip(),
        "name": model,
        "parents": ", ".join(map(_edge_text, parents.values())) or f"none: a root{root}",
        "family": forest.families[model] + 1,
    }
    if true is not None:
        cells["true"] = ", ".join(map(short_name, true)) or "none: a root"
    if kinds := {edge.kind for edge in parents.values()} - {"trained"}:
        cells["kind"] = ", ".join(sorted(kinds)).replace("_", " ")
    return cells


def _edge_text(edge: Edge) -> str:
    parts = [f"{100 * edge.confidence:.0f} % sure"] if math.isfinite(edge.confidence) else []
    parts += [f"{100 * edge.share:.0f} % of it"] if edge.share < 1 else []
    return short_name(edge.parent) + (f" ({', '.join(parts)})" if parts else "")


def _strength(confidence: float) -> float:
    """How strongly an edge is drawn."""
    return 0.3 + 0.7 * confidence if math.isfinite(confidence) else 1.0


def _curves(
    name: str, forest: EvaluatedForest, nodes: Mapping[str, Node], layout: TreeLayout
) -> list[Cells]:
    """To the further parents of mixtures, and true edges that were missed."""
    cells = []
    for number, link in enumerate(forest.links):
        parent, child = nodes.get(link.parent), nodes.get(link.child)
        if parent is None or child is None or (link.edge and child.parent == link.parent):
            continue
        strength = _strength(link.edge.confidence) if link.edge else 0.9
        cells += layout.curve(
            name, parent, child, link=number, status=link.status, strength=strength
        )
    return cells


def _caption(first: EvaluatedForest, forests: int, max_models: int) -> str:
    has_truth = first.truth is not None
    lines: Sequence[str] = [
        "A row per model, its children below it; the fainter an edge, the less sure. The column at "
        "the right has how sure the method is of the parent, or of the root. The pointer on a row "
        "tells about the model, and lights its ancestors and descendants.",
        "Dashed: a true edge that was not found." if has_truth else "",
        f"The menu has other methods' forests{', and the true one' if has_truth else ''}."
        if forests > 1
        else "",
        f"Only the largest families are drawn, **{len(drawn_rows(first, max_models)):,}** of "
        f"{len(first.rows):,} models."
        if len(first.rows) > max_models
        else "",
    ]
    return " ".join(filter(None, lines))
