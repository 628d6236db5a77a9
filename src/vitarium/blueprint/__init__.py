"""What to grow: blueprints, their grids of generating factors, and the plan of every model."""

from vitarium.blueprint.blueprint import Blueprint, library
from vitarium.blueprint.plan import Plan, plan
from vitarium.blueprint.recipe import Imported, Recipe, flatten
from vitarium.blueprint.spec import ImportedSpec, ModelSpec, Spec, restored
from vitarium.blueprint.stage_name import check_stage_name
from vitarium.core.checkpoint_ref import CheckpointRef

__all__ = [
    "Blueprint",
    "CheckpointRef",
    "Imported",
    "ImportedSpec",
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
