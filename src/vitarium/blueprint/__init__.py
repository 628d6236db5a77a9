"""What to grow: blueprints, their grids of generating factors, and the plan of every model."""

from vitarium.blueprint.blueprint import Blueprint as Blueprint
from vitarium.blueprint.blueprint import library as library
from vitarium.blueprint.plan import Plan as Plan
from vitarium.blueprint.plan import plan as plan
from vitarium.blueprint.recipe import Imported as Imported
from vitarium.blueprint.recipe import Recipe as Recipe
from vitarium.blueprint.recipe import flatten as flatten
from vitarium.blueprint.spec import ImportedSpec as ImportedSpec
from vitarium.blueprint.spec import ModelSpec as ModelSpec
from vitarium.blueprint.spec import Spec as Spec
from vitarium.blueprint.spec import restored as restored
from vitarium.blueprint.stage_name import check_stage_name as check_stage_name
from vitarium.core.checkpoint_ref import CheckpointRef as CheckpointRef
