"""A part of a plan, to be grown by itself: the rest elsewhere, or later."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from vitarium.blueprint import Plan
from vitarium.blueprint.spec import described
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.zoo.query import Database, quote


def part_of(plan: Plan, stages: Collection[str] | None = None, only: str = "") -> Plan:
    """The models of these stages that fulfill a condition, and all that they start from.

    So the parts of a plan can be grown on several machines, each into a zoo of its own, and the
    zoos merged: a parent that several parts need has the same id, and is trained for each.

    Args:
        stages: their names; None: all.
        only: an SQL condition over `id`, `stage`, `parent` and the factors, by their dotted names
            or by the last part of these where it is clear: "lr < 0.01 and objective = 'simclr'".

    Raises UnknownName for a stage or a factor that there is not, and InvalidInput for a condition
    that cannot be used, and where no model is left.
    """
    if stages is None and not only.strip():
        return plan
    for name in stages or ():
        if name not in plan.stages:
            raise UnknownName("stage", name, plan.stages)
    wanted = {spec.id for spec in plan.models if stages is None or spec.stage in stages}
    if only.strip():
        wanted &= _fulfilling(plan, only)
    if not wanted:
        raise InvalidInput("no model of the plan is of these stages and fulfills the condition")
    for spec in reversed(plan.models):  # every parent stands before its children
        if spec.id in wanted and spec.parent in plan:
            wanted.add(spec.parent)
    return replace(plan, models=tuple(spec for spec in plan.models if spec.id in wanted))


def _fulfilling(plan: Plan, condition: str) -> set[str]:
    rows: list[dict[str, Any]] = [
        {"id": spec.id, "stage": spec.stage, "parent": spec.parent, **described(spec.factors())}
        for spec in plan.models
    ]
    database = Database.of_models(rows)
    names = list(database.columns["models"])
    last = {name: name.rpartition(".")[2] for name in names}
    count = Counter([*names, *(short for name, short in last.items() if short != name)])
    short = [
        f"{quote(name)} AS {quote(short)}"
        for name, short in last.items()
        if name != short and count[short] == 1
    ]
    source = f"SELECT {', '.join(['*', *short])} FROM models"
    sql = f"SELECT id FROM ({source}) AS models WHERE (\n{condition}\n)"
    return {id for (id,) in database.rows(sql)[1]}
