"""The spec of a model: its recipe at one point of a stage, and what it starts from."""

from vitarium.blueprint.parents import Parent
from vitarium.blueprint.recipe import Recipe
from vitarium.blueprint.spec import ModelSpec
from vitarium.blueprint.stage import Start
from vitarium.core.config import InvalidConfig, Problem


def model_spec(stage: str, recipe: Recipe, start: Start | None, parent: Parent | None) -> ModelSpec:
    """Raises InvalidConfig for what needs a parent that there is not, or an epoch that the parent
    does not keep."""
    if start is None or parent is None:
        _check_from_scratch(recipe)
        return ModelSpec(stage=stage, recipe=recipe)
    epoch = parent.epochs[-1] if start.epoch == -1 else start.epoch
    if epoch not in parent.epochs:
        who = f"stage '{start.stage}'" if start.stage else f"model {parent.id}"
        message = f"{who} does not keep epoch {epoch}; it keeps {list(parent.epochs)}"
        raise InvalidConfig([Problem(("start",), message)])
    return ModelSpec(
        stage=stage,
        parent=parent.id,
        parent_epoch=epoch,
        recipe=recipe,
        conversion=start.operator,
        keep_head=start.keep_head,
    )


def _check_from_scratch(recipe: Recipe) -> None:
    """Raises InvalidConfig for what needs a parent."""
    teacher, adaptation = recipe.objective.plugin.facts.get("teacher"), recipe.adaptation
    if teacher and teacher(recipe.objective.config).is_parent:
        message = "there is no parent to learn from: name a teacher, or a `start`"
        raise InvalidConfig([Problem(("objective", "teacher"), message)])
    if adaptation.facts["needs_parent"]:
        what = f"'{adaptation.name}' changes weights that were trained before"
        raise InvalidConfig([Problem(("adaptation",), f"{what}: give the stage a `start`")])
