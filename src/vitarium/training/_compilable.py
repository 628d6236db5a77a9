"""Which models can be compiled for their training."""

from functools import cache

from vitarium.architectures.base import SamplesSubnetworks
from vitarium.blueprint import Recipe
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.training._companions import runs_parts


def check_compiles(recipe: Recipe) -> None:
    """Raises InvalidInput where a model cannot be compiled for its training."""
    objective, reason = recipe.objective, ""
    if objective.plugin.facts.get("records_blocks", False):
        reason = (
            f"objective '{objective.name}' looks into the model's blocks, which a compiled model "
            "has no more"
        )
    elif runs_parts(recipe):
        reason = (
            f"objective '{objective.name}' runs parts of the model by themselves, which a compiled "
            "model has no more"
        )
    elif recipe.drop_path_schedule != "constant":
        reason = (
            "drop_path_schedule: rates that change in every step would have the model compiled as "
            "often"
        )
    elif samples_subnetworks(recipe.architecture):
        reason = (
            f"architecture '{recipe.architecture.name}': each of its sub-networks would be compiled"
        )
    if reason:
        raise InvalidInput(f"{reason}: train without compilation")


@cache
def samples_subnetworks(architecture: Section) -> bool:
    """Whether other parts of its models learn in each step."""
    with meta_device():
        model = architecture(1)
    return any(isinstance(module, SamplesSubnetworks) for module in model.modules())
