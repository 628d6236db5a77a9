"""Pictures of twins: accuracy against what they take, and the images that they lose."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from vitarium.evaluation.data import EvalData
from vitarium.page.behavior import png
from vitarium.studies.report.figures import (
    HEIGHT,
    LINE,
    PALETTE,
    SOFT,
    WIDTH,
    Figure,
    bare_axes,
    categories,
    data,
)
from vitarium.studies.report.texts import Texts
from vitarium.studies.twins.comparison import COSTS, ORIGINAL, Family
from vitarium.studies.twins.lost_images import LostImage

texts = Texts("twins", "figures")
_COLUMNS, _SIDE, _CELL, _ROW = 8, 84, 96, 128  # of a contact sheet, in images and pixels


def fronts(families: Sequence[Family]) -> Figure | None:
    """Accuracy against each cost, by original; None where nothing of it is known."""
    rows = [row for family in families for cost in COSTS for row in _points(family, cost)]
    if not rows:
        return None
    originals = list(dict.fromkeys(row["family"] for row in rows))
    costs = [cost for cost in COSTS.values() if any(row["cost"] == cost for row in rows)]
    menus = [
        _menu("family", originals, "Twins of "),
        _menu("cost", costs, "against "),
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    kinds = [ORIGINAL, *(kind for kind in kinds if kind != ORIGINAL)]
    x = alt.X("share:Q", title="share of what the original takes", axis=alt.Axis(format=".0%"))
    y_axis = alt.Axis(title="accuracy", format=".3~%")
    y = alt.Y("accuracy:Q", axis=y_axis, scale=alt.Scale(zero=False))
    chosen = "datum.family == family && datum.cost == cost"
    base = alt.Chart(data(rows)).transform_filter(chosen)
    line = base.transform_filter("datum.front").mark_line(
        interpolate="step-after", color=LINE, strokeDash=[4, 3]
    )
    tips: list[Any] = [alt.Tooltip("method:N"), alt.Tooltip("model:N")]
    tips += [alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("accuracy:Q", format=".2%")]
    points = base.mark_point(filled=True, size=90).encode(
        x=x,
        y=y,
        color=categories("kind", kinds, [SOFT, *PALETTE * (1 + len(kinds) // len(PALETTE))]),
        opacity=alt.condition("datum.front", alt.value(1), alt.value(0.35)),
        tooltip=tips,
    )
    chart = alt.layer(line.encode(x=x, y=y, order="share:Q"), points).add_params(*menus)
    chart = chart.properties(width=WIDTH, height=HEIGHT)
    return texts.figure("fronts", "twins-fronts", chart)


def _menu(name: str, options: Sequence[str], title: str) -> alt.Parameter:
    bind: dict[str, Any] = {"bind": alt.binding_select(options=list(options), name=title)}
    return alt.param(name=name, value=options[0], **(bind if len(options) > 1 else {}))


def _points(family: Family, cost: str) -> list[dict[str, Any]]:
    front = {member.ref for member in family.front(cost)}
    shares = family.shares(cost)
    return [
        {
            "family": f"{family.original.ref.model[:8]}@{family.original.ref.epoch}",
            "cost": COSTS[cost],
            "kind": member.twin.method_name if member.twin else ORIGINAL,
            "method": member.method,
            "model": member.ref.model[:8],
            "share": shares[member.ref],
            "accuracy": member.accuracy,
            "front": member.ref in front,
        }
        for member in family.members
        if member.ref in shares and member.accuracy is not None
    ]


def contact_sheet(family: Family, examples: EvalData, images: Sequence[LostImage]) -> Figure | None:
    """Pictures of images, with their classes; None where there is none."""
    if not images:
        return None
    cells = []
    for number, image in enumerate(images):
        row, column = divmod(number, _COLUMNS)
        text = f"{image.label} \u2192 {image.predicted}"
        losers = ", ".join(twin.method for twin in image.losers)
        cells.append(
            {
                "url": png(examples, image.number, _SIDE),
                "x": (column + 0.5) * _CELL,
                "y": row * _ROW + _SIDE / 2,
                "text_y": row * _ROW + _SIDE + 12,
                "count_y": row * _ROW + _SIDE + 26,
                "text": text,
                "count": f"{len(image.losers)} of {len(family.comparable)}",
                "image": image.number,
                "losers": losers,
            }
        )
    width = min(len(images), _COLUMNS) * _CELL
    height = -(-len(images) // _COLUMNS) * _ROW
    x, y = bare_axes([0, width], [height, 0])
    base = alt.Chart(data(cells)).encode(x=x("x"))
    tips = [alt.Tooltip("image:Q"), alt.Tooltip("text:N", title="class"), alt.Tooltip("losers:N")]
    pictures = base.mark_image(width=_SIDE, height=_SIDE).encode(
        y=y("y"), url="url:N", tooltip=tips
    )
    looks: dict[str, Any] = {"color": SOFT, "fontSize": 11, "limit": _CELL - 4}
    names = base.mark_text(**looks).encode(y=y("text_y"), text="text:N")
    counts = base.mark_text(**looks).encode(y=y("count_y"), text="count:N")
    chart = alt.layer(pictures, names, counts).properties(width=width, height=height)
    name = f"twins-lost-{family.original.ref.model[:8]}-{family.original.ref.epoch}"
    return texts.figure("lost", name, chart, original=str(family.original.ref))
