"""Tables of a recovered forest: scores, doubts, all edges, and what was compared."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from vitarium.lineage.base import DECIDED
from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.evaluated import (
    EvaluatedForest,
    Forests,
    Status,
    candidate_list,
    short_name,
)
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import DASH, SIGN, Columns, Quantity
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Estimate

texts = Texts("lineage", "tables")
MEANINGS: dict[str, tuple[str, str]] = Texts("lineage", "scores").content
"""By score: its short name, and what it is the share of."""
MIN_EDGES = 20
"""Edges of which the truth is known from which on confidences are compared with what is right."""
_BIN_EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_ROOT = "none: a root"


def comparison(forests: Forests) -> Table:
    """A column per method: its scores, and how its forest differs from the first."""
    evaluated = list(forests.values())
    first = evaluated[0].forest
    shares = {
        name: ([forest.score(score) for forest in evaluated], meaning)
        for score, (name, meaning) in MEANINGS.items()
    }
    same = [
        sum(set(first.parents[m]) == set(e.forest.parents[m]) for m in first.models)
        for e in evaluated
    ]
    reference = f"models with exactly the parents that `{first.method}` gives them"
    shares["same parents"] = [count / len(first.models) for count in same], reference
    cells: dict[str, tuple[list[Any], str]] = {
        name: ([None if v is None else Quantity(v, "sure") for v in values], meaning)
        for name, (values, meaning) in shares.items()
        if any(value is not None for value in values)
    }
    cells["trees"] = [len(e.forest.trees) for e in evaluated], ""
    cells["roots"] = [len(e.roots) for e in evaluated], "models without parents"
    cells["edges"] = [len(e.forest.edges) for e in evaluated], "from parents to children"
    rows = [
        {"": name, **dict(zip(forests, values, strict=True)), "the share of": meaning}
        for name, (values, meaning) in cells.items()
        if len(forests) > 1 or evaluated[0].scores is not None
    ]
    return texts.table("comparison", rows, wrap=True)


def calibration(forest: EvaluatedForest) -> Table:
    """Edges by confidence, with how many are right; empty where too few are known."""
    edges = [(edge.confidence, status) for edge, status in forest.edges if status != Status.UNKNOWN]
    confidences = np.array([confidence for confidence, _ in edges])
    right = np.array([status in (Status.RIGHT, Status.TIED) for _, status in edges])
    # the highest bin is closed: a confidence of 1 is in it
    bins = np.searchsorted(_BIN_EDGES[1:-1], confidences, side="right")
    rows = []
    for number, (low, high) in enumerate(pairwise(_BIN_EDGES)):
        inside = bins == number
        if len(edges) < MIN_EDGES or not inside.any():
            continue
        count, total = int(right[inside].sum()), int(inside.sum())
        bounds = (round(float(b), 12) for b in proportion_confint(count, total, method="wilson"))
        share = Estimate(float(right[inside].mean()), *bounds)
        name = f"{100 * low:.0f} to {100 * high:.0f}{SIGN}"
        rows.append((name, total, count, share, float(confidences[inside].mean())))
    columns: Columns = {"confidence": "", "edges": "", "right": ""}
    columns |= {"share that is right": "sure", "confidence, on average": "sure"}
    return texts.table("calibration", rows, columns)


def doubtful(forest: EvaluatedForest) -> Table:
    """Edges and roots below DECIDED with what else is possible, the least probable first."""
    cells = [(e.confidence, e.child, short_name(e.parent), status) for e, status in forest.edges]
    roots = forest.forest.roots
    cells += [(roots.get(root, 1.0), root, _ROOT, forest.statuses[root]) for root in forest.roots]
    rows = []
    for confidence, model, parent, status in sorted(cells):
        if confidence < DECIDED:
            first = {"most probable parent": parent, "confidence": confidence}
            rest = {"or": candidate_list(forest.forest, model)} if forest.forest.candidates else {}
            rows.append(_row(forest, model, status, first | rest))
    heading = texts("doubtful", limit=DECIDED)
    return Table.of(heading, rows, units={"confidence": "sure"}, folded=None)


def mistakes(forest: EvaluatedForest) -> Table:
    rows = []
    for model in [node.model for node in forest.rows]:
        if (status := forest.statuses[model]) not in (Status.RIGHT, Status.UNKNOWN):
            parents = ", ".join(map(short_name, forest.forest.parents[model])) or _ROOT
            rows.append(_row(forest, model, status, {"recovered parent": parents}))
    return texts.table("mistakes", rows, folded=None)


def edges(forest: EvaluatedForest) -> Table:
    """All models with their parents, as in the figure from the top; folded."""
    statuses = {(edge.parent, edge.child): status for edge, status in forest.edges}
    names = ("tree", "parent", "confidence", "share", "made by", "change")
    rows: list[dict[str, Any]] = []

    def add(model: str, status: str, *values: Any) -> None:
        cells = dict(zip(names, values, strict=True))
        rows.append(_row(forest, model, status, cells, truth=False) | {"model": model})

    for model in [node.model for node in forest.rows]:
        tree, parents = forest.families[model] + 1, forest.forest.parents[model]
        if not parents:
            sure = forest.forest.roots.get(model)
            add(model, forest.statuses[model], tree, _ROOT, sure, None, DASH, DASH)
        for parent, edge in parents.items():
            kind, status = edge.kind.replace("_", " "), statuses[parent, model]
            add(model, status, tree, parent, edge.confidence, edge.share, kind, edge.change or DASH)
    missed = [link for link in forest.links if link.edge is None]
    for link in missed:
        add(link.child, link.status, None, link.parent, None, None, DASH, DASH)
    units = {"confidence": "sure", "share": "share"}
    key = "edges_and_missed" if missed else "edges"
    return texts.table(key, rows, units=units, folded=True)


def _row(
    forest: EvaluatedForest, model: str, status: str, cells: Mapping[str, Any], truth: bool = True
) -> dict[str, Any]:
    """With a description where anything is known of any model, and with what the truth says."""
    row: dict[str, Any] = {"model": short_name(model)}
    if any(forest.descriptions.values()):
        row["what it is"] = forest.descriptions.get(model, "")
    row |= cells
    if truth and forest.truth is not None:
        true = forest.true_parents(model)
        row["true parent"] = DASH if true is None else ", ".join(map(short_name, true)) or _ROOT
    return row if forest.truth is None else row | {"is": status}


def groups(recovered: Recovered) -> Table:
    families, rows = dict(zip(recovered.forest.models, recovered.forest.families, strict=True)), []
    for number, group in enumerate(recovered.groups, 1):
        trees = len({families[model] for model in group.models if model in families})
        some = ", ".join(map(short_name, list(group.models)[:3]))
        some += ", …" if len(group.models) > 3 else ""
        share = f"{100 * group.shared:.1f}{SIGN}"
        rows.append((number, len(group.models), trees, group.tensors, share, some))
    names = ("group", "models", "trees", "tensors compared", "share of the parameters")
    columns: Columns = dict.fromkeys((*names, "models such as"), "")
    return texts.table("groups", rows, columns, wrap=True)


def left_out(reasons: Mapping[str, str]) -> Table:
    columns: Columns = {"model or file": "", "why": ""}
    return texts.table("left_out", sorted(reasons.items()), columns, wrap=True, folded=None)
