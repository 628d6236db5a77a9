"""A recovered forest as lines of text, for a terminal."""

from collections.abc import Iterator

from vitarium.studies.lineage.evaluated import (
    RIGHT,
    TIED,
    UNKNOWN,
    EvaluatedForest,
    short_name,
)
from vitarium.studies.report.trees import Node

MAX_MODELS = 60
"""Models that are listed."""


def forest_lines(forest: EvaluatedForest, max_models: int = MAX_MODELS) -> list[str]:
    """A line per model: its name, how sure its parent is, and what is wrong where that is known.

    3f2a91c0  root 99 %     pretrain
    ├─ 91c2aa01  97 %       finetune  lr=0.01
    └─ 0b77e1d4  61 %       finetune  lr=0.1   (wrong: of 91c2aa01)
    """
    rows = forest.rows[:max_models]
    heads = list(_heads(forest, rows))
    width = max((len(head) for head in heads), default=0) + 2
    lines = [
        f"{head:{width}}{_remarks(forest, row)}".rstrip()
        for head, row in zip(heads, rows, strict=True)
    ]
    more = len(forest.rows) - len(rows)
    return [*lines, f"… {more:,} more models; see the page"] if more else lines


def _heads(forest: EvaluatedForest, rows: list[Node]) -> Iterator[str]:
    last_child = {row.parent: row.model for row in forest.rows if row.parent}
    ancestors: list[Node] = []
    for row in rows:
        del ancestors[row.depth :]
        bars = [
            "   " if last_child[node.parent] == node.model else "│  "
            for node in ancestors
            if node.parent
        ]
        if row.parent:
            bars.append("└─ " if last_child[row.parent] == row.model else "├─ ")
        ancestors.append(row)
        name = f"{short_name(row.model)}  {_confidence(forest, row.model)}"
        yield "".join(bars) + name.rstrip()


def _confidence(forest: EvaluatedForest, model: str) -> str:
    root = "" if forest.forest.parents[model] else "root"
    if root and model not in forest.forest.roots:
        return root
    confidence = forest.confidence(model)
    return f"{root} {100 if confidence == 1 else min(100 * confidence, 99):.0f} %".strip()


def _remarks(forest: EvaluatedForest, row: Node) -> str:
    remarks = [forest.descriptions.get(row.model, "")]
    parents = forest.forest.parents[row.model]
    further = [short_name(parent) for parent in parents if parent != row.parent]
    if further:
        remarks.append(f"(and of {', '.join(further)})")
    status = forest.statuses[row.model]
    if status not in (RIGHT, UNKNOWN):
        true = ", ".join(map(short_name, forest.true_parents(row.model) or ()))
        parent = f"of {true}" if true else "a root"
        remarks.append(f"({'tied' if status == TIED else 'wrong'}: {parent})")
    return "  ".join(filter(None, remarks))
