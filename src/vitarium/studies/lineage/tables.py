"""Tables of a recovered forest: doubtful edges, all edges, what was compared and what was not."""

from collections.abc import Mapping
from typing import Any

from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.evaluated import (
    DOUBTFUL,
    MISSED,
    RIGHT,
    UNKNOWN,
    EvaluatedForest,
    short_name,
)
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import DASH, SIGN

_ROOT = "none: a root"


def doubtful(forest: EvaluatedForest) -> Table:
    """Edges and roots that the method is not sure of, the least sure first."""
    edges = [
        (edge.confidence, edge.child, short_name(edge.parent), status)
        for edge, status in forest.edges
        if edge.confidence < DOUBTFUL
    ]
    edges += [
        (forest.forest.roots[root], root, _ROOT, forest.statuses[root])
        for root in forest.roots
        if forest.forest.roots.get(root, 1.0) < DOUBTFUL
    ]
    rows = [
        {
            "model": short_name(child),
            **_description(forest, child),
            "recovered parent": parent,
            "confidence": confidence,
            **_if_known(forest, {"true parent": _true(forest, child), "is": status}),
        }
        for confidence, child, parent, status in sorted(edges)
    ]
    heading = f"Edges and roots of a confidence below {100 * DOUBTFUL:.0f}{SIGN}"
    return Table.of(heading, rows, units={"confidence": "sure"}, folded=None)


def mistakes(forest: EvaluatedForest) -> Table:
    """Models whose parents are not the true ones."""
    rows = [
        {
            "model": short_name(row.model),
            **_description(forest, row.model),
            "recovered parent": ", ".join(map(short_name, forest.forest.parents[row.model]))
            or _ROOT,
            "true parent": _true(forest, row.model),
            "is": forest.statuses[row.model],
        }
        for row in forest.rows
        if forest.statuses[row.model] not in (RIGHT, UNKNOWN)
    ]
    return Table.of("Models with other parents than the true ones", rows, folded=None)


def edges(forest: EvaluatedForest) -> Table:
    """All models with their parents, as in the figure from the top; folded."""
    statuses = {(edge.parent, edge.child): status for edge, status in forest.edges}
    rows = []

    def add(
        model: str,
        tree: Any,
        parent: str,
        status: str,
        confidence: float | None = None,
        share: float | None = None,
        kind: str = DASH,
    ) -> None:
        row = {"model": model, **_description(forest, model), "tree": tree, "parent": parent}
        row |= {"confidence": confidence, "share": share, "made by": kind}
        rows.append({**row, **_if_known(forest, {"is": status})})

    for node in forest.rows:
        model, tree = node.model, forest.families[node.model] + 1
        parents = forest.forest.parents[model]
        if not parents:
            add(model, tree, _ROOT, forest.statuses[model], forest.forest.roots.get(model))
        for edge in parents.values():
            status, kind = statuses[edge.parent, model], edge.kind.replace("_", " ")
            add(model, tree, edge.parent, status, edge.confidence, edge.share, kind)
    missed = [link for link in forest.links if link.status == MISSED]
    for link in missed:
        add(link.child, None, link.parent, MISSED)
    note = "Share: how much of a mixture is this parent's."
    note += " At the end, true edges that were missed." if missed else ""
    units = {"confidence": "sure", "share": "share"}
    return Table.of("All models and their parents", rows, note, units=units, folded=True)


def _description(forest: EvaluatedForest, model: str) -> dict[str, str]:
    """A column of it where anything is known of any model."""
    if not any(forest.descriptions.values()):
        return {}
    return {"what it is": forest.descriptions.get(model, "")}


def _if_known(forest: EvaluatedForest, cells: Mapping[str, str]) -> Mapping[str, str]:
    return cells if forest.truth is not None else {}


def _true(forest: EvaluatedForest, model: str) -> str:
    parents = forest.true_parents(model)
    if parents is None:
        return DASH
    return ", ".join(map(short_name, parents)) or _ROOT


def groups(recovered: Recovered) -> Table:
    """What was compared with what."""
    families = dict(zip(recovered.forest.models, recovered.forest.families, strict=True))
    rows = [
        {
            "group": number,
            "models": len(group.models),
            "trees": len({families[model] for model in group.models if model in families}),
            "tensors compared": group.tensors,
            "share of the numbers": f"{100 * group.shared:.1f}{SIGN}",
            "models such as": ", ".join(map(short_name, list(group.models)[:3]))
            + (", …" if len(group.models) > 3 else ""),
        }
        for number, group in enumerate(recovered.groups, 1)
    ]
    return Table.of(
        "Models that can be compared",
        rows,
        "Models of one shape are a group, and no edge leads from one to another. Heads are left "
        "out; where models lack tensors, only what all of a group have is compared. The share is "
        "that of the largest model's numbers, heads left out.",
        wrap=True,
    )


def left_out(reasons: Mapping[str, str]) -> Table:
    """What was set aside."""
    rows = [{"model or file": name, "why": why} for name, why in sorted(reasons.items())]
    return Table.of("Set aside", rows, wrap=True, folded=None)
