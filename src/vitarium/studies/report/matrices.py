"""Numbers of pairs of models as heat maps, models in the order of their lineage."""

import base64
import io
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report.figures import SOFT, Figure, bare_axes, data
from vitarium.studies.report.text import title, unit_of
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.stages import Stage, is_distance

SIDE = 208  # of a heat map, in pixels
MAX_CELLS = 120
"""Models up to which a heat map has a cell to point at for each pair; it is an image beyond."""
_MAX_NAMES = 30  # families up to which each has its name at the side
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
    return matrix_figure(
        stage,
        matrix,
        f"{stage.name}-{measure.replace('_', '-')}",
        heading[0].upper() + heading[1:],
        heading.partition("(")[2].rstrip(")") or heading,
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

    With `reverse` where they are small for models that are alike: bright is alike on every map.
    """
    finite = matrix[np.isfinite(matrix)]
    if not len(finite):
        return None
    ends = list(domain) if domain else [float(finite.min()), float(finite.max())]
    looks: dict[str, Any] = {"gradientLength": SIDE, "titleFontWeight": "normal"}
    key = alt.Legend(title=legend, format=number_format, orient="bottom", **looks)
    scale = alt.Scale(scheme="viridis", domain=ends, clamp=True, reverse=reverse)
    color = alt.Color("value:Q", scale=scale, legend=key)
    x, y = bare_axes([0, len(stage)], [len(stage), 0])
    if len(stage) <= MAX_CELLS:
        cells = _cells(stage, matrix).encode(x=x("x"), x2="x2:Q", y=y("y"), y2="y2:Q", color=color)
    else:  # an image, and two unseen points for the legend
        ticks = alt.Chart(data([{"value": value} for value in ends])).mark_point(opacity=0)
        image = alt.Chart(data([{"url": picture(matrix, ends[::-1] if reverse else ends)}]))
        image = image.mark_image(width=SIDE, height=SIDE, aspect=False)
        center = alt.value(SIDE / 2)
        cells = ticks.encode(color=color) + image.encode(url="url:N", x=center, y=center)
    families = _families(stage, x, y)
    caption = "Models in the order of their " + (
        "lineage; lines part the children of different parents." if families else "factors."
    )
    chart = alt.layer(cells, *families).properties(width=SIDE, height=SIDE)
    return Figure(name, title, caption, chart, wide=False)


def _cells(stage: Stage, matrix: Numbers) -> Any:
    labels = [factor.labels.tolist() for factor in stage.factors if factor.name != PARENT]
    ids = [id[:8] for id in stage.ids]
    names = [" · ".join(words) for words in zip(ids, *labels, strict=True)]
    rows = [
        {"x": b, "x2": b + 1, "y": a, "y2": a + 1, "value": float(v), "a": names[b], "b": names[a]}
        for (a, b), v in np.ndenumerate(matrix)
        if np.isfinite(v)
    ]
    tips = [alt.Tooltip("a:N", title="model"), alt.Tooltip("b:N", title="and")]
    tips.append(alt.Tooltip("value:Q", format=".4f"))
    return alt.Chart(data(rows)).mark_rect().encode(tooltip=tips)


def picture(matrix: Numbers, domain: Sequence[float]) -> str:
    """A matrix [rows, columns] as a PNG in viridis' colors, NaN transparent, in a data URL."""
    from PIL import Image

    low, high = domain
    scaled = np.nan_to_num((matrix - low) / (high - low if high != low else 1)).clip(0, 1)
    anchors = np.frombuffer(bytes.fromhex(_VIRIDIS), dtype=np.uint8).reshape(-1, 3)
    steps = np.linspace(0, 1, len(anchors))
    rgb = [np.interp(scaled, steps, channel) for channel in anchors.T]
    alpha = np.where(np.isfinite(matrix), 255, 0)
    colors = np.stack([*rgb, alpha], axis=-1).round().astype(np.uint8)
    factor = -(-2 * SIDE // len(matrix))  # so that no browser blurs cells when it draws it larger
    size = (len(matrix) * factor,) * 2
    image = Image.fromarray(colors, "RGBA").resize(size, Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _families(stage: Stage, x: Callable[[str], alt.X], y: Callable[[str], alt.Y]) -> list[Any]:
    """Lines between the children of different parents, and the parents' names at the side."""
    parents = [parent or "" for parent in stage.parents]
    starts = [0, *(i for i in range(1, len(parents)) if parents[i] != parents[i - 1]), len(parents)]
    if len(starts) < 3:
        return []
    rules = alt.Chart(data([{"at": start} for start in starts[1:-1]]))
    rules = rules.mark_rule(color="white", strokeWidth=1.5)
    ancestry = next((f for f in stage.factors if f.name.startswith(f"{PARENT}'s ")), None)
    kinds = [f"{label} " for label in ancestry.labels] if ancestry else [""] * len(parents)
    names = [
        {"middle": (start + end) / 2, "name": kinds[start] + parents[start][:4]}
        for start, end in pairwise(starts)
    ]
    texts = alt.Chart(data(names if len(names) <= _MAX_NAMES else []))
    texts = texts.mark_text(align="right", dx=-6, fontSize=11, color=SOFT)
    texts = texts.encode(y=y("middle"), x=alt.value(0), text="name:N")
    return [rules.encode(x=x("at")), rules.encode(y=y("at")), texts]
