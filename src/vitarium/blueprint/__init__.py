"""What to grow: blueprints, their grids of generating factors, and the plan of every model."""

from vitarium.blueprint.blueprint import Blueprint, library
from vitarium.blueprint.plan import Plan, plan
from vitarium.blueprint.recipe import Ingredient, ModelSpec, Recipe, flatten

__all__ = ["Blueprint", "Ingredient", "ModelSpec", "Plan", "Recipe", "flatten", "library", "plan"]
