"""Numbers of pairs of models as heat maps, models in the order of their lineage."""

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report.figures import SOFT, Figure, data
from vitarium.studies.report.text import title, unit_of
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.measures import is_distance
from vitarium.studies.statistics.stages import Stage

SIDE = 208
"""Of a heat map, in pixels."""
MAX_CELLS = 120
"""Models up to which a heat map has a cell to point at for each pair; it is an image beyond."""
_MAX_NAMES = 30
"""Families up to which each has its name at the side."""
_VIRIDIS = (
    "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d"
    "2f6b8e2c728e297a8e26828e23898e21918c1f988b1fa08822a78528ae8032b67a"
    "3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725"
)
"""The color map at 33 even steps, as RGB in hexadecimal (matplotlib, CC0)."""


def heat_map(stage: Stage, measure: str) -> Figure | None:
    """A measure of all pairs."""
    matrix = stage.pairs.get(measure)
    if matrix is None or len(stage) < 4:
        return None
    heading = title(measure)
    legend = heading.partition("(")[2].rstrip(")") or heading
    name = f"{stage.name}-{measure.replace('_', '-')}"
    return matrix_figure(
        stage,
        matrix,
        name,
        heading[0].upper() + heading[1:],
        legend,
        number_format=".0%" if unit_of(measure) == "fraction" else ".2~f",
        reverse=is_distance(measure),
    )


def matrix_figure(
    stage: Stage,
    matrix: Numbers,
    name: str,
    title: str,
    legend: str,
    *,
    number_format: str = ".2~f",
    reverse: bool = False,
    domain: Sequence[float] | None = None,
) -> Figure | None:
    """Numbers of pairs, [models, models], as a heat map; None where there is no number.

    Args:
        legend: what they are.
        reverse: they are small for models that are alike: bright is alike on every map.
        domain: from the smallest to the largest; None: of these.
    """
    finite = matrix[np.isfinite(matrix)]
    if not len(finite):
        return None
    ends = list(domain) if domain else [float(finite.min()), float(finite.max())]
    key = alt.Legend(
        title=legend,
        format=number_format,
        orient="bottom",
        gradientLength=SIDE,
        titleFontWeight="normal",
    )
    scale = alt.Scale(scheme="viridis", domain=ends, clamp=True, reverse=reverse)
    color = alt.Color("value:Q", scale=scale, legend=key)
    x = alt.Scale(domain=[0, len(stage)], nice=False)
    y = alt.Scale(domain=[len(stage), 0], nice=False)
    cells = (
        _cells(stage, matrix, color, x, y)
        if len(stage) <= MAX_CELLS
        else _image(matrix, ends, reverse, color)
    )
    layers = [cells, *_families(stage, x, y)]
    return Figure(
        name,
        title,
        "Models in the order of their lineage; lines part the children of different parents."
        if _borders(stage)
        else "Models in the order of their factors.",
        alt.layer(*layers).properties(width=SIDE, height=SIDE),
        wide=False,
    )


def _cells(stage: Stage, matrix: Numbers, color: alt.Color, x: alt.Scale, y: alt.Scale) -> Any:
    names = _names(stage)
    rows = [
        {
            "x": column,
            "x2": column + 1,
            "y": row,
            "y2": row + 1,
            "value": float(value),
            "a": names[column],
            "b": names[row],
        }
        for (row, column), value in np.ndenumerate(matrix)
        if np.isfinite(value)
    ]
    return (
        alt.Chart(data(rows))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", scale=x, axis=None),
            x2="x2:Q",
            y=alt.Y("y:Q", scale=y, axis=None),
            y2="y2:Q",
            color=color,
            tooltip=[
                alt.Tooltip("a:N", title="model"),
                alt.Tooltip("b:N", title="and"),
                alt.Tooltip("value:Q", format=".4f"),
            ],
        )
    )


def _image(matrix: Numbers, domain: Sequence[float], reverse: bool, color: alt.Color) -> Any:
    """An image for the cells, and two unseen points for the legend."""
    ends = alt.Chart(data([{"value": value} for value in domain])).mark_point(opacity=0)
    image = (
        alt.Chart(data([{"url": picture(matrix, domain[::-1] if reverse else domain)}]))
        .mark_image(width=SIDE, height=SIDE, aspect=False)
        .encode(url="url:N", x=alt.value(SIDE / 2), y=alt.value(SIDE / 2))
    )
    return ends.encode(color=color) + image


def picture(matrix: Numbers, domain: Sequence[float]) -> str:
    """A matrix [rows, columns] as a PNG image in viridis' colors, in a data URL.

    NaN is transparent.
    """
    from PIL import Image

    low, high = domain
    scaled = np.nan_to_num((matrix - low) / (high - low if high != low else 1)).clip(0, 1)
    anchors = np.frombuffer(bytes.fromhex(_VIRIDIS), dtype=np.uint8).reshape(-1, 3)
    steps = np.linspace(0, 1, len(anchors))
    rgb = [np.interp(scaled, steps, channel) for channel in anchors.T]
    alpha = np.where(np.isfinite(matrix), 255, 0)
    colors = np.stack([*rgb, alpha], axis=-1).round().astype(np.uint8)
    factor = -(-2 * SIDE // len(matrix))  # so that no browser blurs cells when it draws it larger
    image = Image.fromarray(colors, "RGBA").resize(
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
    """Each parent, and where its children begin and end; nothing for a single family."""
    parents = [parent or "" for parent in stage.parents]
    starts = [0, *(i for i in range(1, len(parents)) if parents[i] != parents[i - 1]), len(parents)]
    borders = [(parents[start], start, end) for start, end in pairwise(starts)]
    return borders if len(borders) > 1 else []


def _families(stage: Stage, x: alt.Scale, y: alt.Scale) -> list[Any]:
    """Lines between the children of different parents, and the parents' names at the side."""
    borders = _borders(stage)
    if not borders:
        return []
    rules = alt.Chart(data([{"at": start} for _, start, _ in borders[1:]]))
    rules = rules.mark_rule(color="white", strokeWidth=1.5)
    ancestry = next((f for f in stage.factors if f.name.startswith(f"{PARENT}'s ")), None)
    names = [
        {
            "middle": (start + end) / 2,
            "name": (f"{ancestry.labels.iloc[start]} " if ancestry else "") + parent[:4],
        }
        for parent, start, end in borders
    ]
    texts = alt.Chart(data(names if len(names) <= _MAX_NAMES else []))
    texts = texts.mark_text(align="right", dx=-6, fontSize=11, color=SOFT)
    return [
        rules.encode(x=alt.X("at:Q", scale=x, axis=None)),
        rules.encode(y=alt.Y("at:Q", scale=y, axis=None)),
        texts.encode(y=alt.Y("middle:Q", scale=y, axis=None), x=alt.value(0), text="name:N"),
    ]
