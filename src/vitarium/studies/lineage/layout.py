"""Where everything of a drawn forest stands, in pixels across and rows down."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitarium.lineage.forest import Edge
from vitarium.studies.lineage.rows import Judged, Row, shown, told_of

MOST = 1500
"""Models that are drawn; of more, the largest families."""
TEXT, SURE = 400, 260
"""Pixels for a name, and for the scale of confidences."""
_TALLEST, _CLOSEST, _WIDEST = 4600, 2.6, 15.0
"""Pixels of a figure, and between its rows."""
_NAMED = 8.0
"""Pixels between rows from which on each has its name."""
_DEEP, _ACROSS, _BULGE = 300, 24, 80
"""Pixels of a tree, at most; of each step down; and for curves at its right."""

Cells = dict[str, Any]
"""A row of a figure's data."""


class Layout:
    """The tree at the left, then names, then confidences."""

    def __init__(self, forests: Mapping[str, Sequence[Row]], curved: Collection[str]) -> None:
        self.count = max(len(rows) for rows in forests.values())
        self.step = min(_WIDEST, max(_CLOSEST, _TALLEST / self.count))
        """Pixels from row to row."""
        deepest = {name: max(row.depth for row in rows) for name, rows in forests.items()}
        self.across = {name: min(_ACROSS, _DEEP / max(deep, 1)) for name, deep in deepest.items()}
        self.named = self.step >= _NAMED
        self.text = {
            name: 14 + self.across[name] * deep + (_BULGE if name in curved else 14)
            for name, deep in deepest.items()
        }
        """Where names begin, by forest."""
        self.width = max(self.text.values()) + (TEXT if self.named else 10) + SURE + 12
        self.top = 22 / self.step
        """Rows of space above the first."""

    def x(self, name: str, row: Row) -> float:
        return 10 + self.across[name] * row.depth

    def sure(self, confidence: float) -> float:
        return self.width - 12 - SURE * (1 - confidence)


@dataclass
class Picture:
    """Data of a figure; a cell `forest` has the name of a method."""

    nodes: list[Cells] = field(default_factory=list)
    trunks: list[Cells] = field(default_factory=list)
    """A line down from each parent to its last child."""
    curves: list[Cells] = field(default_factory=list)
    """To the further parents of mixtures, and true edges that were missed: four corners of each."""


def drawn(rows: Sequence[Row], most: int = MOST) -> list[Row]:
    """Whole families from the largest on, as many as there is room for; of the first, as much."""
    if len(rows) <= most:
        return list(rows)
    kept = list(rows[:most])
    cut = rows[most].family
    return [row for row in kept if row.family != cut] or kept


def picture(
    forests: Mapping[str, Judged], info: Mapping[str, Mapping[str, Any]], most: int = MOST
) -> tuple[Picture, Layout]:
    """Of every method's forest."""
    rows = {name: drawn(judged.rows, most) for name, judged in forests.items()}
    curved = [
        name
        for name, judged in forests.items()
        if judged.mixtures or any(link.edge is None for link in judged.links)
    ]
    layout, found = Layout(rows, curved), Picture()
    for name, judged in forests.items():
        places = {row.model: row for row in rows[name]}
        for model, row in places.items():
            found.nodes.append(_node(name, row, judged, layout) | told_of(info.get(model, {})))
        found.trunks += _trunks(name, places, layout)
        found.curves += _curves(name, judged, places, layout)
    return found, layout


def _node(name: str, row: Row, judged: Judged, layout: Layout) -> Cells:
    parents = judged.forest.parents[row.model]
    true = judged.true_parents(row.model)
    sure = min(
        (edge.confidence for edge in parents.values()),
        default=judged.forest.roots.get(row.model, math.nan),
    )
    x = layout.x(name, row)
    node = {
        "forest": name,
        "row": row.row,
        "last": row.last,
        "x": x,
        "back": x - layout.across[name] if row.depth else None,
        "text": layout.text[name],
        "status": judged.statuses[row.model],
        "role": "root" if not parents else "model" if len(parents) == 1 else "mixture of several",
        "at": layout.sure(sure),
        "strength": _strength(sure),
        "label": f"{shown(row.model)}  {judged.words.get(row.model, '')}".strip(),
        "name": row.model,
        "parents": ", ".join(map(_told, parents.values())) or _root(sure),
        "family": row.family + 1,
    }
    if true is not None:
        node["true"] = ", ".join(map(shown, true)) or "none: a root"
    if kinds := {edge.kind for edge in parents.values()} - {"trained"}:
        node["kind"] = ", ".join(sorted(kinds)).replace("_", " ")
    return node


def _root(sure: float) -> str:
    return "none: a root" + (f" ({100 * sure:.0f} % sure)" if math.isfinite(sure) else "")


def _told(edge: Edge) -> str:
    told = [f"{100 * edge.confidence:.0f} % sure"] if math.isfinite(edge.confidence) else []
    told += [f"{100 * edge.share:.0f} % of it"] if edge.share < 1 else []
    return shown(edge.parent) + (f" ({', '.join(told)})" if told else "")


def _strength(sure: float) -> float:
    """How strongly an edge is drawn."""
    return 0.3 + 0.7 * sure if math.isfinite(sure) else 1.0


def _trunks(name: str, rows: Mapping[str, Row], layout: Layout) -> list[Cells]:
    last: dict[str, int] = {}
    for row in rows.values():
        if row.above:
            last[row.above] = row.row
    return [
        {"forest": name, "x": layout.x(name, rows[parent]), "row": rows[parent].row, "end": end}
        for parent, end in last.items()
    ]


def _curves(name: str, judged: Judged, rows: Mapping[str, Row], layout: Layout) -> list[Cells]:
    found = []
    for number, link in enumerate(judged.links):
        parent, child = rows.get(link.parent), rows.get(link.child)
        if parent is None or child is None or (link.edge and child.above == link.parent):
            continue
        start, end = layout.x(name, parent), layout.x(name, child)
        far = abs(parent.row - child.row) / layout.count
        out = min(max(start, end) + 14 + (_BULGE - 20) * far**0.5, layout.text[name] - 8)
        corners = [(start, parent), (out, parent), (out, child), (end, child)]
        strength = _strength(link.edge.confidence) if link.edge else 0.9
        found += [
            {
                "forest": name,
                "link": number,
                "corner": corner,
                "x": x,
                "row": row.row,
                "status": link.status,
                "strength": strength,
            }
            for corner, (x, row) in enumerate(corners)
        ]
    return found
