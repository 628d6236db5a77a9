"""What to grow: blueprints, their grids of generating factors, and the plan of every model."""

from vitarium.blueprint.blueprint import Blueprint, library
from vitarium.blueprint.imported import Imported
from vitarium.blueprint.plan import Plan, plan
from vitarium.blueprint.recipe import Recipe, flatten
from vitarium.blueprint.spec import ImportedSpec, Ingredient, ModelSpec, Spec, restored
from vitarium.blueprint.stage_name import check_stage_name

__all__ = [
    "Blueprint",
    "Imported",
    "ImportedSpec",
    "Ingredient",
    "ModelSpec",
    "Plan",
    "Recipe",
    "Spec",
    "check_stage_name",
    "flatten",
    "library",
    "plan",
    "restored",
]
