"""Trees of models: the layout and the figure of recovered forests and of a zoo's lineage."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from vitarium.studies.report.figures import FAINT, SOFT, Figure, bare_axes, categories, data, plain

_TEXT_WIDTH, _SCALE_WIDTH, _BULGE = 400, 260, 80  # pixels of names, scale, curves beside the tree
_MAX_DEPTH_WIDTH, _STEP_WIDTH = 300, 24  # pixels of a tree, at most, and of each step down
_MIN_STEP, _MAX_STEP, _MIN_NAMED_STEP = 2.6, 15.0, 8.0  # pixels between rows; from 8 on named
_SHAPES = {"root": "square", "model": "circle", "mixture of several": "triangle-up"}
DASHED = "true, but missed"  # status of edges that are drawn dashed

Cells = dict[str, Any]  # a row of a figure's data; its cell `forest` has the name of the forest


class Node(NamedTuple):
    """A model's row, counted from the top, that of its last descendant, and its depth."""

    model: str
    row: int
    last: int
    depth: int
    parent: str | None


def arrange(parents: Mapping[str, str | None]) -> list[Node]:
    """Every model once, each parent above its children; in the order in which they are given.

    A parent that is not among the models is none, and no model is its own ancestor: models in a
    circle stand in the end, without parents.
    """
    children: dict[str | None, list[str]] = {}
    for model, parent in parents.items():
        children.setdefault(parent if parent in parents else None, []).append(model)
    order: dict[str, tuple[int, str | None]] = {}
    waiting: list[tuple[str, int, str | None]] = [
        (model, 0, None) for model in reversed([*children.get(None, []), *parents])
    ]
    while waiting:
        model, depth, parent = waiting.pop()
        if model not in order:
            order[model] = (depth, parent)
            waiting += [(child, depth + 1, model) for child in reversed(children.get(model, []))]
    last = {model: row for row, model in enumerate(order)}
    for model, (_, parent) in reversed(order.items()):
        if parent is not None:
            last[parent] = max(last[parent], last[model])
    return [
        Node(model, row, last[model], depth, parent)
        for row, (model, (depth, parent)) in enumerate(order.items())
    ]


class TreeLayout:
    """Positions in pixels across and rows down: the tree at the left, then names, then a scale.

    Args:
        forests: nodes by the name of their forest; a menu chooses between several.
        curved: forests with curves at the right of the tree.
        height: of the figure, about, in pixels.
    """

    def __init__(
        self,
        forests: Mapping[str, Sequence[Node]],
        curved: Collection[str] = (),
        *,
        height: float = 4600,
        min_step: float = _MIN_STEP,
    ) -> None:
        self.forests = list(forests)
        self.nodes: list[Cells] = []
        self.trunks: list[Cells] = []  # lines down from each parent to its last child
        self.curves: list[Cells] = []  # edges that are not of the tree: four corners of each
        self.count = max(len(nodes) for nodes in forests.values())
        self.step = min(_MAX_STEP, max(min_step, height / self.count))  # pixels from row to row
        depths = {name: max(node.depth for node in nodes) for name, nodes in forests.items()}
        self.indent = {n: min(_STEP_WIDTH, _MAX_DEPTH_WIDTH / max(d, 1)) for n, d in depths.items()}
        self.has_names = self.step >= _MIN_NAMED_STEP
        self.text = {
            name: 14 + self.indent[name] * depth + (_BULGE if name in curved else 14)
            for name, depth in depths.items()
        }
        """Where names begin, by forest."""
        names = _TEXT_WIDTH if self.has_names else 10
        self.width = max(self.text.values()) + names + _SCALE_WIDTH + 12
        self.top = 22 / self.step  # rows of space above the first
        for name, nodes in forests.items():
            rows = {node.model: node for node in nodes}
            for parent, end in {n.parent: n.row for n in nodes if n.parent}.items():
                cells = {"x": self.x(name, rows[parent]), "row": rows[parent].row, "end": end}
                self.trunks.append({"forest": name, **cells})

    def x(self, forest: str, node: Node) -> float:
        return 10 + self.indent[forest] * node.depth

    def on_scale(self, fraction: float) -> float:
        """A position between the ends of the scale at the right, 0 to 1."""
        return self.width - 12 - _SCALE_WIDTH * (1 - fraction)

    def add_node(self, forest: str, node: Node, fraction: float, **cells: Any) -> None:
        """A model; further cells are `status`, which colors it, `role`, `label`, ..."""
        x = self.x(forest, node)
        back = x - self.indent[forest] if node.depth else None
        edge = {"forest": forest, "row": node.row, "last": node.last, "x": x, "back": back}
        looks = {"text": self.text[forest], "role": "model", "at": self.on_scale(fraction)}
        self.nodes.append({**edge, **looks, "strength": 1.0, **cells})

    def add_curve(self, forest: str, parent: Node, child: Node, **cells: Any) -> None:
        """A curve at the right of the tree; `cells` are those of the edge."""
        start, end = self.x(forest, parent), self.x(forest, child)
        distance = abs(parent.row - child.row) / self.count
        bulge = max(start, end) + 14 + (_BULGE - 20) * distance**0.5
        turn = min(bulge, self.text[forest] - 8)
        corners = [(start, parent), (turn, parent), (turn, child), (end, child)]
        self.curves += [
            {"forest": forest, "corner": corner, "x": x, "row": node.row} | cells
            for corner, (x, node) in enumerate(corners)
        ]


def tree_figure(
    layout: TreeLayout,
    name: str,
    title: str,
    caption: str,
    *,
    colors: Mapping[str, str],
    marks: Sequence[tuple[float, str]],
    tooltip: Mapping[str, str],
) -> Figure:
    """A row per model; `colors` by status.

    Args:
        marks: labels of the scale at the right, each at a fraction of it.
        tooltip: titles of cells that are told of a model; those that no node has are left out.
    """
    menu = alt.binding_select(options=layout.forests, name="The forest that is recovered by ")
    bind: dict[str, Any] = {"bind": menu} if len(layout.forests) > 1 else {}
    current = alt.param(name="forest", value=layout.forests[0], **bind)
    tips = [
        alt.Tooltip(f"{key}:N", title=heading)
        for key, heading in tooltip.items()
        if any(key in node for node in layout.nodes)
    ]
    chart = alt.layer(*_layers(layout, colors, marks, tips)).add_params(current)
    height = layout.step * (layout.count + layout.top)
    rows = {"nodes": layout.nodes, "trunks": layout.trunks, "curves": layout.curves}
    datasets = {key: plain(cells) for key, cells in rows.items()}
    chart = chart.properties(width=layout.width, height=height)
    return Figure(name, title, caption, chart, datasets=datasets)


def _layers(
    layout: TreeLayout,
    colors: Mapping[str, str],
    marks: Sequence[tuple[float, str]],
    tips: Sequence[alt.Tooltip],
) -> list[Any]:
    x, y = bare_axes([0, layout.width], [layout.count - 0.5, -0.5 - layout.top])

    def chart(name: str) -> Any:
        return alt.Chart(alt.NamedData(name)).transform_filter("datum.forest == forest")

    present = {cell["status"] for cell in (*layout.nodes, *layout.curves)}
    statuses = [status for status in colors if status in present]
    color = categories("status", statuses, [colors[status] for status in statuses])
    roles = [role for role in _SHAPES if any(node["role"] == role for node in layout.nodes)]
    legend = alt.Legend(title=None, orient="top", symbolFillColor=SOFT, symbolStrokeColor=SOFT)
    shapes = alt.Scale(domain=roles, range=[_SHAPES[role] for role in roles])
    shape = alt.Shape("role:N", scale=shapes, legend=legend if len(roles) > 1 else None)
    opacity = alt.Opacity("strength:Q", scale=None, legend=None)
    edge: dict[str, Any] = {"y": y("row"), "color": color, "opacity": opacity}
    size = min(max(layout.step * 4, 8), 55)
    larger = alt.ExprRef(f"datum.role == 'mixture of several' ? {1.8 * size} : {size}")
    ticks = [
        {"at": layout.on_scale(at), "text": text, "top": -0.5, "end": layout.count}
        for at, text in marks
    ]
    scale, nodes = alt.Chart(data(ticks)), chart("nodes")
    rules = scale.mark_rule(color=FAINT, opacity=0.5, strokeDash=[2, 3], clip=True)
    texts = scale.mark_text(baseline="bottom", dy=-4, fontSize=10.5, color=SOFT)
    edges = nodes.transform_filter("isValid(datum.back)")
    edges = edges.mark_rule(strokeWidth=min(2.2, layout.step / 3))
    layers = [
        _highlight(nodes, x, y, layout.width).encode(tooltip=tips),
        rules.encode(x=x("at"), y=y("top"), y2="end:Q"),
        texts.encode(x=x("at"), y=y("top"), text="text:N"),
        chart("trunks").mark_rule(color=FAINT).encode(x=x("x"), y=y("row"), y2="end:Q"),
        edges.encode(x=x("x"), x2="back:Q", **edge),
    ]
    for dash, test in (([1, 0], "!="), ([4, 3], "==")) if layout.curves else ():
        curves = chart("curves").transform_filter(f"datum.status {test} '{DASHED}'")
        curves = curves.mark_line(interpolate="basis", strokeWidth=1.4, strokeDash=dash)
        layers.append(curves.encode(x=x("x"), detail="link:N", order="corner:Q", **edge))
    dots = nodes.mark_point(filled=True, opacity=1, size=larger)
    values = nodes.transform_filter("isValid(datum.at)").mark_circle(opacity=1, size=0.7 * size)
    layers.append(dots.encode(x=x("x"), y=y("row"), color=color, shape=shape))
    layers.append(values.encode(x=x("at"), y=y("row"), color=color))
    if layout.has_names:
        weight = alt.ExprRef("datum.role == 'root' ? 700 : 400")
        looks: dict[str, Any] = {"align": "left", "baseline": "middle", "limit": _TEXT_WIDTH - 14}
        looks |= {"fontSize": min(11.0, layout.step - 1), "fontWeight": weight, "color": SOFT}
        layers.append(nodes.mark_text(**looks).encode(x=x("text"), y=y("row"), text="label:N"))
    return layers


def _highlight(nodes: Any, x: Any, y: Any, width: float) -> Any:
    """Bands under the row that the pointer is on, its ancestors and its descendants."""
    events: dict[str, Any] = {"on": "pointerover", "clear": "pointerout"}
    pointer = alt.selection_point(name="kin", fields=["row", "last"], empty=False, **events)
    itself = "kin.row && datum.row == kin.row[0]"
    below = "kin.row && datum.row > kin.row[0] && datum.row <= kin.last[0]"
    above = "kin.row && datum.row < kin.row[0] && datum.last >= kin.row[0]"
    shade = alt.ExprRef(f"({itself}) ? 0.28 : ({below}) || ({above}) ? 0.12 : 0")
    bands = nodes.transform_calculate(
        over="datum.row - 0.5", under="datum.row + 0.5", left="0", right=f"{width}"
    )
    bands = bands.mark_rect(color=SOFT).add_params(pointer)
    bands = bands.encode(x=x("left"), x2="right:Q", y=y("over"), y2="under:Q")
    return bands.encode(opacity=alt.value(shade))
