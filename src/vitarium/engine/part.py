"""A part of a plan, to be grown by itself: the rest elsewhere, or later."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from vitarium.blueprint import Plan
from vitarium.blueprint.spec import described
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.parameters import parameter
from vitarium.engine.teachers import planned_teacher
from vitarium.zoo.listing import condition_text
from vitarium.zoo.query import Database


def part_of(plan: Plan, stages: Collection[str] | None = None, only: str = "") -> Plan:
    """The models of these stages that fulfill a condition, and all that they start from.

    So the parts of a plan can be grown on several machines, each into a zoo of its own, and the
    zoos merged: a parent that several parts need has the same id, and is trained for each.

    Args:
        stages: their names; None: all.
        only: an SQL condition over `id`, `stage`, `parent` and the factors, by their dotted names
            or by the last part of these where it is clear: "lr < 0.01 and objective = 'simclr'".

    Raises UnknownName for a stage or a factor that there is not, and InvalidInput for a condition
    that cannot be used, where no model is left, and for a stage that is waiting (`Plan.waiting`).
    """
    stages = [stages] if isinstance(stages, str) else stages
    chosen = plan.waiting if stages is None else {*stages} & plan.waiting.keys()
    for name in chosen:
        first = plan.waiting[name]
        raise InvalidInput(
            f"stage '{name}' needs models of '{first}', which may stop early: their last epoch is "
            "known when they are grown; first grow that alone, "
            f"{parameter('stages', first)}, then the rest"
        )
    only = condition_text(only, "only")
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
        needed = (spec.parent, planned_teacher(spec, plan))
        wanted |= {id for id in needed if id and id in plan and spec.id in wanted}
    return replace(plan, models=tuple(spec for spec in plan.models if spec.id in wanted))


def _fulfilling(plan: Plan, only: str) -> set[str]:
    rows: list[dict[str, Any]] = [
        {"id": spec.id, "stage": spec.stage, "parent": spec.parent, **described(spec.factors())}
        for spec in plan.models
    ]
    condition = f"SELECT id FROM models WHERE (\n{only}\n)"  # a comment ends with its line
    return {id for (id,) in Database.of_models(rows).rows(condition)[1]}
