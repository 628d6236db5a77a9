"""The models of a stage, what generated them, and the number that is to be explained."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitarium.blueprint.plan import distinguishing_factors
from vitarium.core.errors import InvalidInput, MissingPlugin, UnknownName
from vitarium.core.parameters import parameter
from vitarium.core.printable import printable, shortened
from vitarium.core.registry import plugins
from vitarium.data.expected import expected
from vitarium.data.splits import num_val
from vitarium.formats.summary import text
from vitarium.studies.base import Population
from vitarium.studies.factors.coding import Coded
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import (
    MAX_LABEL,
    PARENT,
    SHOWN_ELSEWHERE,
    is_seed,
    shorter_names,
)
from vitarium.zoo import Zoo, _index
from vitarium.zoo.listing import evaluate
from vitarium.zoo.query import UnknownColumn

DATA_AMOUNT = "train_limit"
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Observed:
    """What is known of the models of a stage that have the target.

    Args:
        names: of the factors, each with its dotted name, e.g. "lr": "optimizer.lr".
        parents: [models]; None where the models have none, or too few share one.
        replicates: [models], equal for models that differ in seeds alone; None: no two do.
        individual: factors of which (almost) each model has its own value, which is no number.
        left_out: why models are not here, and how many.
    """

    stage: str
    ids: Sequence[str]
    target: Numbers
    factors: Sequence[Coded]
    names: Mapping[str, str]
    parents: Sequence[str] | None = None
    replicates: NDArray[np.int64] | None = None
    seeds: Sequence[str] = ()
    individual: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


def observe(
    population: Population, target: str, stage: str | None, ignored: Sequence[str] = ()
) -> Observed:
    """Read the models of a stage; None: of the last, which descends furthest.

    Raises UnknownName for a stage, a target or an ignored factor that there is not; InvalidInput
    where the target is not measured, or no number, or nothing varies.
    """
    zoo = population.zoo
    entries = _index.load(zoo.path, with_entries=True).entries
    facts = {id: entries[id]["facts"] for id in population.ids}
    stage = _stage({id: entry["facts"] for id, entry in entries.items()}, facts, stage)
    ids = [id for id in facts if facts[id]["stage"] == stage]
    left_out = Counter(str(facts[id]["status"]) for id in ids if facts[id]["status"] != "finished")
    ids = [id for id in ids if facts[id]["status"] == "finished"]
    values = _targets(zoo, target, ids)
    absent = [id for id in ids if values[id] is None]
    ids = [id for id in ids if values[id] is not None]
    finite = {id: v for id in ids if (v := values[id]) is not None and math.isfinite(v)}
    left_out |= {"without a value": len(absent), "diverged (not finite)": len(ids) - len(finite)}
    if not finite:
        raise InvalidInput(
            f"no model of the stage {printable(stage)} has a finite value of {printable(target)}"
            f"{_hint(zoo, target)}"
        )
    factors = {id: _without_nulls(entry["factors"]) for id, entry in entries.items()}
    observed = observed_of(
        printable(stage),
        finite,
        _with_whole_data(zoo, {id: factors[id] for id in finite}),
        {id: facts[id]["parent"] for id in finite},
        factors,
        ignored,
    )
    return replace(observed, left_out={why: count for why, count in left_out.items() if count})


def observed_of(
    stage: str,
    target: Mapping[str, float],
    factors: Rows,
    parents: Mapping[str, str | None],
    parents_factors: Rows = MappingProxyType({}),
    ignored: Sequence[str] = (),
) -> Observed:
    """Of the target and the factors by model, their parents, and the factors of these by parent.

    Raises InvalidInput where nothing varies but seeds, and UnknownName for an ignored factor.
    """
    ids = list(target)
    columns, names = _columns(ids, factors, parents, parents_factors)
    for name in ignored:
        if name not in columns and name not in names.values():
            raise UnknownName("factor", name, columns)
    columns = {n: c for n, c in columns.items() if n not in ignored and names[n] not in ignored}
    seeds = [name for name in columns if is_seed(names[name])]
    varying = {name: values for name, values in columns.items() if name not in seeds}
    coded = [Coded(name, values) for name, values in varying.items()]
    individual = [factor.name for factor in coded if factor.is_individual]
    used = _nested(_merged([factor for factor in coded if not factor.is_individual]))
    if not used:
        exceptions = [*seeds, *(f"{name} (no two have the same)" for name in individual)]
        differ = f" but {', '.join(exceptions)}" if exceptions else ""
        raise InvalidInput(
            f"no factor varies among the {len(ids)} models of the stage {stage}{differ}; "
            f"study another one: {parameter('stage', 'NAME')}"
        )
    families = [parents[id] or "none" for id in ids]
    shared = 1 < len(set(families)) <= len(ids) / 2
    keys = [(families[i], *(text(v[i]) for v in varying.values())) for i in range(len(ids))]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    replicates = np.array([numbers[key] for key in keys])
    return Observed(
        stage,
        ids,
        np.array([target[id] for id in ids]),
        used,
        names,
        families if shared else None,
        replicates if seeds and len(numbers) < len(ids) else None,
        seeds,
        individual,
    )


def _stage(all_facts: Rows, facts: Rows, stage: str | None) -> str:
    """The one that is asked for, or the one whose models descend furthest, of the most models."""
    counts = Counter(str(row["stage"]) for row in facts.values() if row["status"] == "finished")
    if stage is not None:
        if stage not in counts:
            raise UnknownName("stage", stage, counts)
        return stage

    def depth(id: str) -> int:
        steps = 0
        while (parent := all_facts[id]["parent"]) in all_facts and steps < len(all_facts):
            id, steps = parent, steps + 1
        return steps

    depths: dict[str, int] = {}
    for id, row in facts.items():
        if row["status"] == "finished":
            depths[row["stage"]] = max(depths.get(row["stage"], 0), depth(id))
    return max(depths, key=lambda name: (depths[name], counts[name], name))


def _targets(zoo: Zoo, target: str, ids: Sequence[str]) -> dict[str, float | None]:
    try:
        return evaluate(zoo.path, target, ids)
    except UnknownColumn as error:
        if error.name in plugins("measure"):
            raise InvalidInput(
                f"{error.name} is not measured yet: vitarium measure {zoo.path} {error.name}"
            ) from None
        raise


def _hint(zoo: Zoo, target: str) -> str:
    return f"; measure it: vitarium measure {zoo.path} {target}" * (target in plugins("measure"))


def _without_nulls(factors: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in factors.items() if value is not None}


def _with_whole_data(zoo: Zoo, factors: Rows) -> Rows:
    """With the number of training images of models that have all, where others have some."""
    key = f"data.{DATA_AMOUNT}"
    if not any(key in row for row in factors.values()):
        return factors
    rows = {id: dict(row) for id, row in factors.items()}
    amounts: dict[str, int | None] = {}
    for id, row in rows.items():
        if key not in row:
            data = str(sorted((k, text(v)) for k, v in row.items() if k.startswith("data")))
            if data not in amounts:
                amounts[data] = _whole_amount(zoo, id)
            if amounts[data] is not None:
                row[key] = amounts[data]
    return rows


def _whole_amount(zoo: Zoo, id: str) -> int | None:
    """Training images of a model without a limit, where that is known without the data."""
    try:
        recipe: Any = getattr(zoo.spec(id), "recipe", None)
        data = recipe.data
        known = expected(data)
        if known.num_train is None or known.num_val is not None:
            return known.num_train
        return known.num_train - num_val(known.num_train, data.config)
    except (MissingPlugin, AttributeError):
        return None


def _columns(
    ids: Sequence[str], factors: Rows, parents: Mapping[str, str | None], parents_factors: Rows
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """By name, each model's value of what differs, its parents' factors last; and dotted names."""
    columns, names = dict[str, list[Any]](), dict[str, str]()
    for key, name in shorter_names(distinguishing_factors([dict(factors[i]) for i in ids])).items():
        columns[name], names[name] = [factors[id].get(key) for id in ids], key
    related = [parent for id in ids if (parent := parents[id]) in parents_factors]
    rows = [dict(parents_factors[parent]) for parent in dict.fromkeys(related) if parent]
    for key in distinguishing_factors(rows) if len(rows) > 1 else ():
        if key not in SHOWN_ELSEWHERE:
            name = f"{PARENT}'s {shortened(printable(key), MAX_LABEL)}"
            values = [parents_factors.get(parents[id] or "", {}).get(key) for id in ids]
            columns[name], names[name] = values, f"{PARENT}.{key}"
    different = {name: len({text(v) for v in values}) for name, values in columns.items()}
    return {n: v for n, v in columns.items() if different[n] > 1}, names


def _merged(factors: Sequence[Coded]) -> list[Coded]:
    """Factors that never vary apart are one, the first, which names the others."""
    merged: dict[tuple[int, ...], Coded] = {}
    for factor in factors:
        codes = factor.codes
        if factor.is_continuous:  # one that falls as another rises varies with it, too
            codes = min(codes, codes.max() - codes, key=lambda c: tuple(c.tolist()))
        else:
            codes = np.unique(codes, return_index=True)[1].argsort().argsort()[codes]
        pattern = tuple(codes.tolist())
        if first := merged.get(pattern):
            factor = replace(first, equivalent=(*first.equivalent, factor.name))
        merged[pattern] = factor
    return list(merged.values())


def _nested(factors: Sequence[Coded]) -> list[Coded]:
    """The coarse ones first; one that determines coarser ones explains what these do not."""
    ordered = sorted(factors, key=lambda f: (f.name.startswith(f"{PARENT}'s "), len(f.levels)))
    nested = {factor.name: factor for factor in ordered}
    by_levels = sorted(ordered, key=lambda f: len(f.levels))
    for coarse, fine in combinations(by_levels, 2):
        if fine.is_continuous or coarse.is_continuous:
            continue
        if len({*zip(fine.codes.tolist(), coarse.codes.tolist(), strict=True)}) == len(fine.levels):
            before = nested[fine.name]
            outer = (*before.outer, coarse.codes.tolist())
            names = (*before.nested_in, coarse.name)
            nested[fine.name] = replace(before, nested_in=names, outer=outer)
    # what a factor is nested in comes before it
    return sorted(nested.values(), key=lambda factor: len(factor.nested_in))
