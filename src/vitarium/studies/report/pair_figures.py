"""Figures of pairs of models: heat maps by lineage, and maps of the population."""

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from vitarium.studies.report.figures import GROUP, Colours, Figure, colour, data
from vitarium.studies.report.text import PERCENT
from vitarium.studies.statistics.analysis import squared_of
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.embedding import (
    TITLES,
    Method,
    embed,
    squared_distances,
    standardised,
)
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.population import Stage

SIDE = 208
"""Of a heat map, in pixels."""
MAPS = {
    "agreement": ("Predictions", "agreement"),
    "cka": ("Representations", "CKA"),
    "weight_l2": ("Weights", "L2 distance"),
}
"""What heat maps there are, and what they are called."""
FAR = {"weight_l2"}
"""Measures that are small for models that are alike; bright is alike on every map."""
MOST_CELLS = 120
"""Models up to which a heat map has a cell to point at for each pair; it is an image beyond."""
SPACES = {"weight_l2": "weights", "statistics": "weight statistics", "agreement": "predictions"}


def heat_map(stage: Stage, measure: str) -> Figure | None:
    """A measure of all pairs, models in the order of their lineage."""
    matrix = stage.pairs.get(measure)
    if matrix is None or len(stage) < 4:
        return None
    what, how = MAPS[measure]
    name = f"{stage.name}-{measure.replace('_', '-')}"
    form = ".0%" if measure in PERCENT else ".2~f"
    return drawn_pairs(
        stage, matrix, name, f"{what}: {how}", how, form=form, reverse=measure in FAR
    )


def drawn_pairs(
    stage: Stage,
    matrix: Numbers,
    name: str,
    title: str,
    how: str,
    *,
    form: str = ".2~f",
    reverse: bool = False,
    domain: Sequence[float] | None = None,
) -> Figure | None:
    """Numbers of pairs, [models, models], as a heat map; None where there is no number.

    Args:
        how: what they are, for the legend.
        reverse: they are small for models that are alike: bright is alike on every map.
        domain: from the smallest to the largest; None: of these.
    """
    there = matrix[np.isfinite(matrix)]
    if not len(there):
        return None
    ends = list(domain) if domain else [float(there.min()), float(there.max())]
    scale = alt.Scale(scheme="viridis", domain=ends, clamp=True, reverse=reverse)
    key = alt.Legend(
        title=how,
        format=form,
        orient="bottom",
        gradientLength=SIDE,
        titleFontWeight="normal",
    )
    n = len(stage)
    places = alt.Scale(domain=[0, n], nice=False)
    cells = (
        _cells(stage, matrix, scale, key, places)
        if n <= MOST_CELLS
        else _image(matrix, ends, reverse, scale, key)
    )
    layers = [cells, *_families(stage, places)]
    chart = alt.layer(*layers).properties(width=SIDE, height=SIDE)
    return Figure(
        name,
        title,
        "Models in the order of their lineage; lines part the children of different parents."
        if _borders(stage)
        else "Models in the order of their factors.",
        chart,
        wide=False,
    )


def _cells(
    stage: Stage, matrix: Numbers, scale: alt.Scale, key: alt.Legend, places: alt.Scale
) -> alt.Chart:
    names = _names(stage)
    rows = [
        {
            "x": x,
            "x2": x + 1,
            "y": y,
            "y2": y + 1,
            "value": float(value),
            "a": names[x],
            "b": names[y],
        }
        for (y, x), value in np.ndenumerate(matrix)
        if np.isfinite(value)
    ]
    return (
        alt.Chart(data(rows))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", scale=places, axis=None),
            x2="x2:Q",
            y=alt.Y("y:Q", scale=alt.Scale(domain=[len(stage), 0], nice=False), axis=None),
            y2="y2:Q",
            color=alt.Color("value:Q", scale=scale, legend=key),
            tooltip=[
                alt.Tooltip("a:N", title="one"),
                alt.Tooltip("b:N", title="other"),
                alt.Tooltip("value:Q", format=".4f"),
            ],
        )
    )


def _image(
    matrix: Numbers, domain: Sequence[float], reverse: bool, scale: alt.Scale, key: alt.Legend
) -> alt.LayerChart:
    """An image for the cells, and two unseen points for the legend."""
    ends = (
        alt.Chart(data([{"value": value} for value in domain]))
        .mark_point(opacity=0)
        .encode(color=alt.Color("value:Q", scale=scale, legend=key))
    )
    image = (
        alt.Chart(data([{"url": picture(matrix, domain[::-1] if reverse else domain)}]))
        .mark_image(width=SIDE, height=SIDE, aspect=False)
        .encode(url="url:N", x=alt.value(SIDE / 2), y=alt.value(SIDE / 2))
    )
    return ends + image


def picture(matrix: Numbers, domain: Sequence[float]) -> str:
    """A matrix as a PNG image of viridis' colours, in a data URL; see-through where it has NaN."""
    from matplotlib import colormaps
    from PIL import Image

    low, high = domain
    scaled = (matrix - low) / (high - low if high != low else 1)
    colours = np.asarray(colormaps["viridis"](np.nan_to_num(scaled)) * 255).round().astype(np.uint8)
    colours[..., 3] = np.where(np.isfinite(matrix), 255, 0)
    factor = -(-2 * SIDE // len(matrix))  # so that no browser blurs cells when it draws it larger
    image = Image.fromarray(colours, "RGBA").resize(
        (len(matrix) * factor,) * 2, Image.Resampling.NEAREST
    )
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _names(stage: Stage) -> list[str]:
    """Id and factors of each model."""
    labels = [factor.labels.tolist() for factor in stage.factors if factor.name != PARENT]
    return [" · ".join([id[:8], *words]) for id, *words in zip(stage.ids, *labels, strict=True)]


def _borders(stage: Stage) -> list[tuple[str, int, int]]:
    """Each parent, and where its children begin and end."""
    parents = [parent or "" for parent in stage.parents]
    starts = [0, *(i for i in range(1, len(parents)) if parents[i] != parents[i - 1]), len(parents)]
    found = [(parents[start], start, end) for start, end in pairwise(starts)]
    return found if len(found) > 1 else []


def _families(stage: Stage, places: alt.Scale) -> list[alt.Chart]:
    """Lines between the children of different parents, and the parents' names at the side."""
    borders = _borders(stage)
    if not borders:
        return []
    down = alt.Scale(domain=[len(stage), 0], nice=False)
    rows = data([{"at": start} for _, start, _ in borders[1:]])
    lines: dict[str, Any] = {"color": "white", "strokeWidth": 1.5}
    ancestry = next((f for f in stage.factors if f.name.startswith(f"{PARENT}'s ")), None)
    named = [
        {
            "middle": (start + end) / 2,
            "name": (f"{ancestry.labels.iloc[start]} " if ancestry else "") + parent[:4],
        }
        for parent, start, end in borders
    ]
    return [
        alt.Chart(rows).mark_rule(**lines).encode(x=alt.X("at:Q", scale=places, axis=None)),
        alt.Chart(rows).mark_rule(**lines).encode(y=alt.Y("at:Q", scale=down, axis=None)),
        alt.Chart(data(named if len(named) <= 30 else []))
        .mark_text(align="right", dx=-6, fontSize=11, color="#7b8494")
        .encode(y=alt.Y("middle:Q", scale=down, axis=None), x=alt.value(0), text="name:N"),
    ]


def spaces(stage: Stage) -> dict[str, tuple[Numbers, list[str]]]:
    """Squared distances in each space, and the models that they are between."""
    found = {}
    for measure, name in SPACES.items():
        if measure == "statistics":
            ids = list(stage.statistics.index)
            if len(ids) > 2 and stage.statistics.shape[1]:
                features = standardised(stage.statistics.to_numpy(dtype=float))
                found[name] = (squared_distances(features), ids)
        elif there := squared_of(stage, measure):
            found[name] = (there[0], [stage.ids[place] for place in there[1]])
    return found


def embedding(
    stage: Stage, methods: Sequence[Method], first: str | None, seed: int
) -> Figure | None:
    """The models as points, near each other where they are alike, in each space and by each way."""
    frames = []
    for space, (squared, ids) in spaces(stage).items():
        for method in methods:
            placed = embed(squared, method, seed=seed)
            if placed is not None:
                # axes mean nothing: to the unit square, so that panels may share them
                unit = (placed - placed.min(0)) / max(np.ptp(placed, axis=0).max(), 1e-300)
                rows = {"model": ids, "space": space, "method": TITLES[method]}
                frames.append(pd.DataFrame({**rows, "x": unit[:, 0], "y": unit[:, 1]}))
    if not frames:
        return None
    points = pd.concat(frames, ignore_index=True)
    colours, there = Colours(stage, first), list(dict.fromkeys(points["method"]))
    menu = alt.binding_select(options=there, name="Placed by ")
    way = alt.param(name="method", value=there[0], bind=menu)
    picked = alt.selection_point(name="picked", fields=["group"], bind="legend")
    ends: dict[str, Any] = {"scale": alt.Scale(domain=[-0.06, 1.06]), "axis": None}
    panel = (
        alt.Chart()
        .mark_circle(size=70)
        .encode(
            x=alt.X("x:Q", **ends),
            y=alt.Y("y:Q", **ends),
            color=colour(),
            opacity=alt.condition(picked, alt.value(0.85), alt.value(0.06)),
            tooltip=colours.tooltip("accuracy"),
        )
        .properties(width=255, height=255, view=alt.ViewBackground(stroke="#c9ced6"))
    )
    order = [space for space in SPACES.values() if space in set(points["space"])]
    chart = (
        alt.layer(panel, data=data(points))
        .transform_filter("datum.method === method")
        .transform_lookup(
            lookup="model",
            from_=alt.LookupData(
                data=data(colours.table), key="model", fields=["id", "accuracy", *colours.columns]
            ),
        )
        .transform_calculate(group=GROUP)
        .facet(
            column=alt.Column(
                "space:N", sort=order, header=alt.Header(title=None, labelFontSize=12)
            )
        )
        .add_params(colours.menu(), way, picked)
    )
    return Figure(
        f"{stage.name}-embedding",
        "Maps of the population",
        "Near each other is alike: in weights by L2 distance, in weight statistics, "
        f"in predictions by disagreement. On paper: {there[0]}, by {colours.name}.",
        chart,
    )
