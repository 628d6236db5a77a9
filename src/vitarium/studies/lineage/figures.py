"""A recovered forest as a tree to look at: right, wrong and missed edges, and how sure each is."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from vitarium.studies.lineage.layout import MOST, TEXT, Layout, Picture, drawn, picture
from vitarium.studies.lineage.rows import MISSED, RIGHT, TIED, UNKNOWN, WRONG, Judged
from vitarium.studies.report.figures import PALETTE, Figure, data, plain

TRUE_FOREST = "the truth"
_COLOURS = {
    RIGHT: PALETTE[0],
    TIED: PALETTE[5],
    WRONG: PALETTE[1],
    MISSED: PALETTE[3],
    UNKNOWN: PALETTE[0],
}
_SHAPES = {"root": "square", "model": "circle", "mixture of several": "triangle-up"}
_TOLD = {
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
"""Of a model, where the pointer is on it."""
_FAINT, _SOFT = "#a9b1bd", "#7b8494"
_CHOSEN = "datum.forest == forest"


def tree(
    forests: Mapping[str, Judged], info: Mapping[str, Mapping[str, Any]], *, most: int = MOST
) -> Figure:
    """A row per model; with several forests, a menu chooses between them."""
    found, layout = picture(forests, info, most)
    chart = _Chart(found, layout).drawn(list(forests))
    caption = _caption(next(iter(forests.values())), len(forests), most)
    named = {name: plain(cells) for name, cells in vars(found).items()}
    return Figure("tree", "The recovered forest", caption, chart, named=named)


class _Chart:
    """Layers on one scale across and one down."""

    def __init__(self, found: Picture, layout: Layout) -> None:
        self.found, self.layout = found, layout
        self.across = alt.Scale(domain=[0, layout.width], nice=False)
        self.down = alt.Scale(domain=[layout.count - 0.5, -0.5 - layout.top], nice=False)
        self.x, self.y = self.at("x"), self.row("row")
        cells = [*found.nodes, *found.curves]
        statuses = [each for each in _COLOURS if any(cell["status"] == each for cell in cells)]
        self.colour = alt.Color(
            "status:N",
            scale=alt.Scale(domain=statuses, range=[_COLOURS[each] for each in statuses]),
            legend=alt.Legend(title=None, orient="top", symbolType="circle", symbolOpacity=1),
        )
        roles = [each for each in _SHAPES if any(node["role"] == each for node in found.nodes)]
        self.shape = alt.Shape(
            "role:N",
            scale=alt.Scale(domain=roles, range=[_SHAPES[each] for each in roles]),
            legend=alt.Legend(
                title=None, orient="top", symbolFillColor=_SOFT, symbolStrokeColor=_SOFT
            ),
        )
        self.strength = alt.Opacity("strength:Q", scale=None, legend=None)

    def at(self, column: str) -> alt.X:
        return alt.X(f"{column}:Q", scale=self.across, axis=None)

    def row(self, column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", scale=self.down, axis=None)

    def drawn(self, names: Sequence[str]) -> Any:
        menu = alt.binding_select(options=list(names), name="The forest that is recovered by ")
        one = alt.param(name="forest", value=names[0])
        chosen = alt.param(name="forest", value=names[0], bind=menu) if len(names) > 1 else one
        layers = [self._bands(), *self._confidences(), *self._lines()]
        layers += [self._curves(missed) for missed in (False, True) if self.found.curves]
        layers += self._dots()
        if self.layout.named:
            layers.append(self._names())
        height = self.layout.step * (self.layout.count + self.layout.top)
        whole = alt.layer(*layers).add_params(chosen)
        return whole.properties(width=self.layout.width, height=height)

    def _of(self, name: Literal["nodes", "trunks", "curves"]) -> Any:
        return alt.Chart(alt.NamedData(name)).transform_filter(_CHOSEN)

    def _bands(self) -> Any:
        """Under what the pointer is on, its ancestors and its descendants; and what is told."""
        hovered = alt.selection_point(
            name="kin", fields=["row", "last"], on="pointerover", clear="pointerout", empty=False
        )
        itself = "kin.row && datum.row == kin.row[0]"
        below = "kin.row && datum.row > kin.row[0] && datum.row <= kin.last[0]"
        above = "kin.row && datum.row < kin.row[0] && datum.last >= kin.row[0]"
        shade = f"({itself}) ? 0.28 : ({below}) || ({above}) ? 0.12 : 0"
        nodes = self.found.nodes
        return (
            self._of("nodes")
            .transform_calculate(
                over="datum.row - 0.5",
                under="datum.row + 0.5",
                left="0",
                right=f"{self.layout.width}",
            )
            .mark_rect(color=_SOFT)
            .encode(
                x=self.at("left"),
                x2="right:Q",
                y=self.row("over"),
                y2="under:Q",
                opacity=alt.value(alt.ExprRef(shade)),
                tooltip=[
                    alt.Tooltip(f"{key}:N", title=title)
                    for key, title in _TOLD.items()
                    if any(key in node for node in nodes)
                ],
            )
            .add_params(hovered)
        )

    def _confidences(self) -> list[Any]:
        marks = [
            {"at": self.layout.sure(value), "text": text, "top": -0.5, "end": self.layout.count}
            for value, text in [(0.0, "0 %"), (0.5, "50 % sure"), (1.0, "100 %")]
        ]
        base = alt.Chart(data(marks))
        x, top = self.at("at"), self.row("top")
        dotted = base.mark_rule(color=_FAINT, opacity=0.5, strokeDash=[2, 3], clip=True)
        return [
            dotted.encode(x=x, y=top, y2="end:Q"),
            base.mark_text(baseline="bottom", dy=-4, fontSize=10.5, color=_SOFT).encode(
                x=x, y=top, text="text:N"
            ),
        ]

    def _lines(self) -> list[Any]:
        """Down from each parent, and across to each child."""
        across = self._of("nodes").transform_filter("isValid(datum.back)")
        return [
            self._of("trunks").mark_rule(color=_FAINT).encode(x=self.x, y=self.y, y2="end:Q"),
            across.mark_rule(strokeWidth=min(2.2, self.layout.step / 3)).encode(
                x=self.x, x2="back:Q", y=self.y, color=self.colour, opacity=self.strength
            ),
        ]

    def _curves(self, missed: bool) -> Any:
        return (
            self._of("curves")
            .transform_filter(f"datum.status {'==' if missed else '!='} '{MISSED}'")
            .mark_line(
                interpolate="basis", strokeWidth=1.4, strokeDash=[4, 3] if missed else [1, 0]
            )
            .encode(
                x=self.x,
                y=self.y,
                detail="link:N",
                order="corner:Q",
                color=self.colour,
                opacity=self.strength,
            )
        )

    def _dots(self) -> list[Any]:
        size = min(max(self.layout.step * 4, 8), 55)
        larger = f"datum.role == 'mixture of several' ? {1.8 * size} : {size}"
        base = self._of("nodes")
        return [
            base.mark_point(filled=True, opacity=1, size=alt.ExprRef(larger)).encode(
                x=self.x, y=self.y, color=self.colour, shape=self.shape
            ),
            base.transform_filter("isValid(datum.at)")
            .mark_circle(opacity=1, size=0.7 * size)
            .encode(x=self.at("at"), y=self.y, color=self.colour),
        ]

    def _names(self) -> Any:
        return (
            self._of("nodes")
            .mark_text(
                align="left",
                baseline="middle",
                fontSize=min(11.0, self.layout.step - 1),
                fontWeight=alt.ExprRef("datum.role == 'root' ? 700 : 400"),
                color=_SOFT,
                limit=TEXT - 14,
            )
            .encode(x=self.at("text"), y=self.y, text="label:N")
        )


def _caption(first: Judged, forests: int, most: int) -> str:
    known = first.truth is not None
    told = [
        "A row per model, its children below it; the fainter an edge, the less sure. The column at "
        "the right has how sure the method is of the parent, or of the root. The pointer on a row "
        "tells about the model, and lights its ancestors and descendants."
    ]
    if known:
        told.append("Dashed: a true edge that was not found.")
    if forests > 1:
        told.append(f"The menu has other methods' forests{', and the true one' if known else ''}.")
    if len(first.rows) > most:
        count = len(drawn(first.rows, most))
        told.append(
            f"Only the largest families are drawn, **{count:,}** of {len(first.rows):,} models."
        )
    return " ".join(told)
