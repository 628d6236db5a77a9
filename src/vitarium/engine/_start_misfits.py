"""What of a model's parent has no place in the model, as problems of its blueprint."""

from vitarium.architectures.compare import adaptation_differences, described
from vitarium.blueprint import ModelSpec, Recipe
from vitarium.blueprint.parents import Parent
from vitarium.core.config import KeyPath, Problem
from vitarium.core.errors import IncompatibleWeights

_ADAPTED = ("img_size", "img_width", "patch_size", "in_chans", "window_size")
"""Settings of an architecture to which weights are adapted."""


def other_additions(spec: ModelSpec, parent: Parent | None) -> Problem | None:
    """Where a model would have no place for what its parent's adaptation added."""
    assert parent
    assert isinstance(parent.origin, Recipe)
    name = parent.origin.adaptation.name
    fault = f"{parent.id} has what its adaptation '{name}' added"
    if spec.conversion:
        return Problem(("start", "operator"), f"{fault}, and no operator converts that")
    differences = adaptation_differences(spec.recipe, parent.origin)
    if not differences:
        return None
    if spec.recipe.adaptation.name == name:
        why = f"the stage sets {described(differences)}; give both the same"
        return Problem(("adaptation",), f"{fault}, with other settings: {why}")
    remedy = "start from its parent, or let that be adapted by one that is merged, as `lora` is"
    rule = f"only a stage of the same adaptation goes on with that; {remedy}"
    return Problem(("start",), f"{fault}, and {rule}")


def start_misfit(spec: ModelSpec, parent: Parent, error: IncompatibleWeights) -> Problem:
    """Where the architecture is set otherwise than the parent's."""
    before, after = parent.origin.architecture, spec.recipe.architecture
    if before is None or spec.conversion or before.name != after.name:
        return Problem(("architecture",), str(error))
    old, new = before.factors(), after.factors()
    differing = [name for name in new if new[name] != old.get(name) and name not in _ADAPTED]
    changes = [f"{name} is {new[name]}, and its parent's {old.get(name)}" for name in differing]
    path: KeyPath = ("architecture", *differing[:1])
    return Problem(path, "; ".join([*changes, str(error)]))
