"""A recovered forest as lines of text, for a terminal."""

from collections.abc import Iterator

from vitarium.studies.lineage.rows import RIGHT, TIED, UNKNOWN, Judged, Row, shown

MOST = 60
"""Models that are listed."""


def lines(judged: Judged, most: int = MOST) -> list[str]:
    """A line per model: its name, how sure its parent is, and what is wrong where that is known.

    3f2a91c0  root 99 %     pretrain
    ├─ 91c2aa01  97 %       finetune  lr=0.01
    └─ 0b77e1d4  61 %       finetune  lr=0.1   (wrong: of 91c2aa01)
    """
    rows = judged.rows[:most]
    heads = list(_heads(judged, rows))
    width = max((len(head) for head in heads), default=0) + 2
    found = [
        f"{head:{width}}{_about(judged, row)}".rstrip()
        for head, row in zip(heads, rows, strict=True)
    ]
    more = len(judged.rows) - len(rows)
    return [*found, f"… {more:,} more models; see the page"] if more else found


def _heads(judged: Judged, rows: list[Row]) -> Iterator[str]:
    last_child = {row.above: row.model for row in judged.rows if row.above}
    ancestors: list[Row] = []
    for row in rows:
        del ancestors[row.depth :]
        bars = [
            "   " if last_child[one.above] == one.model else "│  " for one in ancestors if one.above
        ]
        if row.above:
            bars.append("└─ " if last_child[row.above] == row.model else "├─ ")
        ancestors.append(row)
        yield "".join(bars) + f"{shown(row.model)}  {_sure(judged, row.model)}".rstrip()


def _sure(judged: Judged, model: str) -> str:
    parents = judged.forest.parents[model]
    if not parents:
        sure = judged.forest.roots.get(model)
        return "root" if sure is None else f"root {_whole(sure)}"
    return _whole(min(edge.confidence for edge in parents.values()))


def _whole(sure: float) -> str:
    return f"{100 if sure == 1 else min(100 * sure, 99):.0f} %"


def _about(judged: Judged, row: Row) -> str:
    told = [judged.words.get(row.model, "")]
    parents = judged.forest.parents[row.model]
    others = [shown(parent) for parent in parents if parent != row.above]
    if others:
        told.append(f"(and of {', '.join(others)})")
    status = judged.statuses[row.model]
    if status not in (RIGHT, UNKNOWN):
        true = ", ".join(map(shown, judged.true_parents(row.model) or ()))
        told.append(
            f"({'tied' if status == TIED else 'wrong'}: {f'of {true}' if true else 'a root'})"
        )
    return "  ".join(filter(None, told))
