"""Maps of a population: models as points, near each other where they are alike."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from vitarium.studies.report.figures import GROUP, Figure, ModelColors, data, group_color
from vitarium.studies.statistics.analysis import squared_of
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.embedding import (
    TITLES,
    Method,
    embed,
    squared_distances,
    standardized,
)
from vitarium.studies.statistics.stages import Stage


def spaces(stage: Stage) -> dict[str, tuple[Numbers, list[str]]]:
    """Squared distances [models, models] in each space, and the ids of these models."""
    distances: dict[str, tuple[Numbers, list[str]]] = {}

    def add(space: str, measure: str) -> None:
        if squared := squared_of(stage, measure):
            distances[space] = (squared[0], [stage.ids[index] for index in squared[1]])

    add("weights", "weight_l2")
    ids = list(stage.statistics.index)
    if len(ids) > 2 and stage.statistics.shape[1]:
        features = standardized(stage.statistics.to_numpy(dtype=float))
        distances["weight statistics"] = (squared_distances(features), ids)
    add("predictions", "agreement")
    return distances


def embedding(
    stage: Stage, methods: Sequence[Method], first: str | None, seed: int
) -> Figure | None:
    """The models in each space, placed by each method."""
    frames = []
    distances = spaces(stage)
    for space, (squared, ids) in distances.items():
        for method in methods:
            coordinates = embed(squared, method, seed=seed)
            if coordinates is not None:
                # axes mean nothing: to the unit square, so that panels may share them
                extent = max(np.ptp(coordinates, axis=0).max(), 1e-300)
                unit = (coordinates - coordinates.min(0)) / extent
                rows = {"model": ids, "space": space, "method": TITLES[method]}
                frames.append(pd.DataFrame({**rows, "x": unit[:, 0], "y": unit[:, 1]}))
    if not frames:
        return None
    points = pd.concat(frames, ignore_index=True)
    colors, titles = ModelColors(stage, first), list(dict.fromkeys(points["method"]))
    menu = alt.binding_select(options=titles, name="Placed by ")
    method_menu = alt.param(name="method", value=titles[0], bind=menu)
    scale = alt.Scale(domain=[-0.06, 1.06])
    panel = (
        alt.Chart()
        .mark_circle(size=70)
        .encode(
            x=alt.X("x:Q", scale=scale, axis=None),
            y=alt.Y("y:Q", scale=scale, axis=None),
            color=group_color(),
            opacity=colors.when_picked(0.85, 0.06),
            tooltip=colors.tooltip("accuracy"),
        )
        .properties(width=255, height=255, view=alt.ViewBackground(stroke="#c9ced6"))
    )
    order = [space for space in distances if space in set(points["space"])]
    header = alt.Header(title=None, labelFontSize=12)
    chart = (
        alt.layer(panel, data=data(points))
        .transform_filter("datum.method === method")
        .transform_lookup(lookup="model", from_=colors.lookup("accuracy"))
        .transform_calculate(group=GROUP)
        .facet(column=alt.Column("space:N", sort=order, header=header))
        .add_params(colors.menu(), method_menu, colors.legend_click)
    )
    return Figure(
        f"{stage.name}-embedding",
        "Maps of the population",
        "Near each other is alike: in weights by L2 distance, in weight statistics, "
        f"in predictions by disagreement. On paper: {titles[0]}, by {colors.name}.",
        chart,
    )
