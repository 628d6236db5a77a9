"""The lineage of a population as a tree, each model's accuracy beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from vitarium.studies.report.figures import PALETTE, Figure, axis, data
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.population import Population

_TALLEST = 1200
"""Pixels; with more models the rows come closer."""
_NAMED = 80
"""Models up to which each row has its name."""


@dataclass(frozen=True)
class Place:
    """Where a model stands: its row, counted from the top, and how many ancestors it has."""

    model: str
    row: int
    depth: int
    parent: str | None


def places(parents: Mapping[str, str | None]) -> list[Place]:
    """Every model once, each parent above its children; in the order in which they are given.

    A parent that is not among the models is none, and no model is its own ancestor: models in a
    circle stand in the end, without parents.
    """
    children: dict[str | None, list[str]] = {}
    for model, parent in parents.items():
        children.setdefault(parent if parent in parents else None, []).append(model)
    found: list[Place] = []
    seen: set[str] = set()

    def visit(roots: Sequence[str]) -> None:
        waiting = [(root, 0, None) for root in reversed(roots)]
        while waiting:
            model, depth, parent = waiting.pop()
            if model in seen:
                continue
            seen.add(model)
            found.append(Place(model, len(found), depth, parent))
            below = reversed(children.get(model, []))
            waiting.extend((child, depth + 1, model) for child in below)  # type: ignore[misc]

    visit(children.get(None, []))
    visit([model for model in parents if model not in seen])
    return found


def lineage(population: Population) -> Figure | None:
    """A row per model: at the left the tree, at the right its accuracy."""
    parents = {
        id: parent
        for stage in population.stages
        for id, parent in zip(stage.ids, stage.parents, strict=True)
    }
    if not parents:
        return None
    stages = {id: stage.name for stage in population.stages for id in stage.ids}
    words = {
        id: " ".join(f.labels[id] for f in stage.factors if not f.name.startswith(PARENT))
        for stage in population.stages
        for id in stage.ids
    }
    found = {place.model: place for place in places(parents)}
    step = min(15.0, _TALLEST / len(found))
    rows = [
        {
            "id": place.model[:8],
            "row": place.row,
            "depth": place.depth,
            "stage": stages[place.model],
            "factors": words[place.model],
            "name": f"{place.model[:8]}  {words[place.model]}",
            "accuracy": float(population.accuracies.get(place.model, np.nan)),
        }
        for place in found.values()
    ]
    # an elbow per edge: down from the parent, then across to the child
    edges = [
        {"edge": p.model, "row": row, "depth": depth, "step": number}
        for p in found.values()
        if p.parent
        for number, (row, depth) in enumerate(
            [(found[p.parent].row, p.depth - 1), (p.row, p.depth - 1), (p.row, p.depth)]
        )
    ]
    height = max(step * len(found), 60)
    deepest = max(place.depth for place in found.values())
    down = alt.Scale(domain=[len(found) - 0.5, -0.5], nice=False)
    y = alt.Y("row:Q", scale=down, axis=None)
    across = alt.X("depth:Q", scale=alt.Scale(domain=[-0.2, deepest + 0.2], nice=False), axis=None)
    by_stage = alt.Color(
        "stage:N",
        sort=[stage.name for stage in population.stages],
        scale=alt.Scale(range=PALETTE),
        legend=alt.Legend(title=None, orient="top", symbolType="circle"),
    )
    told = [
        alt.Tooltip("id:N", title="model"),
        alt.Tooltip("stage:N"),
        alt.Tooltip("factors:N"),
        alt.Tooltip("accuracy:Q", format=".2%"),
    ]
    size = float(np.clip(step * 4, 8, 60))
    lines = (
        alt.Chart(data(edges))
        .mark_line(strokeWidth=1, color="#a9b1bd")
        .encode(x=across, y=y, detail="edge:N", order="step:Q")
    )
    nodes = (
        alt.Chart(data(rows))
        .mark_circle(opacity=1, size=size)
        .encode(x=across, y=y, color=by_stage, tooltip=told)
    )
    tree = alt.layer(lines, nodes).properties(width=60 + 45 * deepest, height=height)
    dots = (
        alt.Chart(data(rows))
        .transform_filter("isValid(datum.accuracy)")
        .mark_circle(opacity=0.9, size=size)
        .encode(
            x=alt.X(
                "accuracy:Q",
                scale=alt.Scale(zero=False),
                axis=axis("accuracy", orient="top", title="accuracy"),
            ),
            y=y,
            color=by_stage,
            tooltip=told,
        )
        .properties(width=360, height=height)
    )
    panels = [tree]
    if len(found) <= _NAMED:
        panels.append(
            alt.Chart(data(rows))
            .mark_text(align="left", fontSize=10.5, color="#7b8494")
            .encode(x=alt.value(0), y=y, text="name:N")
            .properties(width=250, height=height)
        )
    chart = alt.hconcat(*panels, dots, spacing=4)
    return Figure(
        "lineage",
        "Lineage and accuracy",
        "A row per model, children below their parent; its accuracy at the right (k-NN accuracy "
        "where a model has no classes).",
        chart,
    )
