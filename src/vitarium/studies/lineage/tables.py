"""Tables of a recovered forest: doubtful edges, all edges, what was compared and what was not."""

import math
from collections.abc import Mapping

from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.rows import DOUBTFUL, MISSED, RIGHT, UNKNOWN, Judged, shown
from vitarium.studies.report.page import Table
from vitarium.studies.report.text import DASH, SIGN

_ROOT = "none: a root"
_UNFOLDED = 40


def sure(confidence: float) -> str:
    """In percent; of what is nearly sure not more than is known."""
    if not math.isfinite(confidence):
        return DASH
    shown = min(100 * confidence, 99.9) if confidence < 1 else 100.0
    return f"{shown:.1f}{SIGN}"


def doubtful(judged: Judged) -> Table | None:
    """Edges and roots that the method is not sure of, the least sure first."""
    found = [
        (edge.confidence, edge.child, shown(edge.parent), status)
        for edge, status in judged.edges
        if edge.confidence < DOUBTFUL
    ]
    found += [
        (judged.forest.roots[root], root, _ROOT, judged.statuses[root])
        for root in judged.roots
        if judged.forest.roots.get(root, 1.0) < DOUBTFUL
    ]
    if not found:
        return None
    known = judged.truth is not None
    rows = [
        [
            shown(child),
            *_words(judged, child),
            parent,
            sure(confidence),
            *([_true(judged, child), status] if known else []),
        ]
        for confidence, child, parent, status in sorted(found)
    ]
    columns = ["model", *_what(judged), "recovered parent", "confidence"]
    return Table(
        f"Edges and roots of a confidence below {100 * DOUBTFUL:.0f}{SIGN}",
        [*columns, *(["true parent", "is"] if known else [])],
        rows,
        open=len(rows) <= _UNFOLDED,
    )


def mistakes(judged: Judged) -> Table | None:
    """Models whose parents are not the true ones."""
    rows = [
        [
            shown(row.model),
            *_words(judged, row.model),
            ", ".join(map(shown, judged.forest.parents[row.model])) or _ROOT,
            _true(judged, row.model),
            judged.statuses[row.model],
        ]
        for row in judged.rows
        if judged.statuses[row.model] not in (RIGHT, UNKNOWN)
    ]
    if not rows:
        return None
    columns = ["model", *_what(judged), "recovered parent", "true parent", "is"]
    return Table(
        "Models with other parents than the true ones", columns, rows, open=len(rows) <= _UNFOLDED
    )


def edges(judged: Judged) -> Table:
    """All models with their parents, as in the figure from the top; folded."""
    known = judged.truth is not None
    of_edge = {(edge.parent, edge.child): status for edge, status in judged.edges}
    rows = []
    for row in judged.rows:
        parents = judged.forest.parents[row.model]
        base = [row.model, *_words(judged, row.model), str(row.family + 1)]
        if not parents:
            root = sure(judged.forest.roots.get(row.model, math.nan))
            status = judged.statuses[row.model]
            rows.append([*base, _ROOT, root, DASH, DASH, *([status] if known else [])])
        for edge in parents.values():
            of = [edge.parent, sure(edge.confidence), f"{100 * edge.share:.0f}{SIGN}"]
            made = "" if edge.kind == "trained" else edge.kind.replace("_", " ")
            status = of_edge[edge.parent, edge.child]
            rows.append([*base, *of, made or "trained", *([status] if known else [])])
    missed = [link for link in judged.links if link.status == MISSED]
    for link in missed:
        base = [link.child, *_words(judged, link.child), DASH]
        rows.append([*base, link.parent, DASH, DASH, DASH, MISSED])
    columns = ["model", *_what(judged), "tree", "parent", "confidence", "share", "made by"]
    return Table(
        "All models and their parents",
        [*columns, *(["is"] if known else [])],
        rows,
        "Share: how much of a mixture is this parent's."
        + (" At the end, true edges that were missed." if missed else ""),
        open=False,
    )


def _what(judged: Judged) -> list[str]:
    """The heading of `_words`."""
    return ["what it is"] if any(judged.words.values()) else []


def _words(judged: Judged, model: str) -> list[str]:
    """What is known of a model; nothing at all where nothing is known of any."""
    return [judged.words.get(model, "")] if _what(judged) else []


def _true(judged: Judged, model: str) -> str:
    parents = judged.true_parents(model)
    if parents is None:
        return DASH
    return ", ".join(map(shown, parents)) or _ROOT


def groups(recovered: Recovered) -> Table:
    """What was compared with what."""
    families = dict(zip(recovered.forest.models, recovered.forest.families, strict=True))
    rows = [
        [
            str(number),
            str(len(group.models)),
            str(len({families[model] for model in group.models if model in families})),
            str(group.tensors),
            f"{100 * group.shared:.1f}{SIGN}",
            ", ".join(map(shown, list(group.models)[:3]))
            + (", …" if len(group.models) > 3 else ""),
        ]
        for number, group in enumerate(recovered.groups, 1)
    ]
    columns = [
        "group",
        "models",
        "trees",
        "tensors compared",
        "share of the numbers",
        "models such as",
    ]
    return Table(
        "Models that can be compared",
        columns,
        rows,
        "Models of one shape are a group, and no edge leads from one to another. Heads are left "
        "out; where models lack tensors, only what all of a group have is compared. The share is "
        "that of the largest model's numbers, heads left out.",
        wrap=True,
    )


def left_out(reasons: Mapping[str, str]) -> Table | None:
    """What was set aside."""
    if not reasons:
        return None
    rows = [[name, why] for name, why in sorted(reasons.items())]
    return Table(
        "Set aside", ["model or file", "why"], rows, wrap=True, open=len(rows) <= _UNFOLDED
    )
