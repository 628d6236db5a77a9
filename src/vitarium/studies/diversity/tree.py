"""The lineage of a population as a tree, each model's accuracy beside it."""

import numpy as np

from vitarium.studies.report.figures import PALETTE, Figure
from vitarium.studies.report.text import number
from vitarium.studies.report.trees import TreeLayout, TreeRows, arrange, tree_chart
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.stages import Stages

_HEIGHT = 1200
"""Pixels, about; with more models the rows come closer."""


def lineage(stages: Stages) -> Figure | None:
    """A row per model: at the left the tree, at the right its accuracy."""
    nodes = {node.model: node for node in arrange(stages.parents)}
    if not nodes:
        return None
    layout = TreeLayout({"": list(nodes.values())}, height=_HEIGHT, min_step=0)
    accuracies = stages.accuracies.dropna()
    low, high = (accuracies.min(), accuracies.max()) if len(accuracies) else (0.0, 1.0)
    rows = TreeRows(trunks=layout.trunks("", nodes))
    for stage in stages.stages:
        factors = [factor for factor in stage.factors if not factor.name.startswith(PARENT)]
        for id in stage.ids:
            accuracy = float(accuracies.get(id, np.nan))
            values = " ".join(factor.labels[id] for factor in factors)
            cells = {
                "status": stage.name,
                "label": f"{id[:8]}  {values}",
                "name": id[:8],
                "factors": values,
                "accuracy": number(accuracy, "fraction"),
            }
            fraction = (accuracy - low) / (high - low if high > low else 1)
            rows.nodes.append(layout.node("", nodes[id], fraction, **cells))
    names = [stage.name for stage in stages.stages]
    chart = tree_chart(
        rows,
        layout,
        forests=[""],
        colors=dict(zip(names, PALETTE * len(names), strict=False)),
        marks=[
            (share, number(float(low + share * (high - low)), "fraction")) for share in (0, 0.5, 1)
        ],
        tooltip={"name": "model", "status": "stage", "factors": "factors", "accuracy": "accuracy"},
    )
    return Figure(
        "lineage",
        "Lineage and accuracy",
        "A row per model, children below their parent; its accuracy at the right (k-NN accuracy "
        "where a model has no classes).",
        chart,
        datasets=rows.datasets,
    )
