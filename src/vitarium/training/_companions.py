"""What an objective does to a model that is trained, and what it brings: companions and masks."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitarium.blueprint import Recipe
from vitarium.core import seeds
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.objectives.base import TokenMasks
from vitarium.objectives.companions import Companions


def prepare_model(recipe: Recipe, model: nn.Module, *, from_scratch: bool) -> None:
    """Let the objective set what of the model does not learn; raises InvalidInput.

    What it draws is drawn from the recipe's seed.
    """
    if prepare := recipe.objective.facts.get("prepare"):
        with seeds.seeded(seeds.derive(recipe.seed, "prepare")):
            prepare(recipe.objective.config, model, from_scratch)


def runs_parts(recipe: Recipe) -> bool:
    """Whether the objective may call parts of the model by themselves, and not the model: where it
    hides patches, or brings modules that go with them."""
    facts = recipe.objective.facts
    return bool(facts.get("masks") or facts.get("companions"))


class ParentCompanions(NamedTuple):
    """What is known of the companions of a model's parent.

    state: tensors [*shape] by name, to go on with; None: companions are new.
    remark: which of both, and why; "" where nobody would expect anything else.
    objective: the parent's, for errors.
    """

    state: Mapping[str, Tensor] | None
    remark: str = ""
    objective: Section | None = None


def make_companions(
    recipe: Recipe,
    model: nn.Module,
    num_classes: int,
    parent: ParentCompanions | None = None,
) -> Companions | None:
    """Of a model with the weights that it starts with, on its device; drawn from the recipe's seed,
    or with what its parent's hold.

    Raises InvalidInput where the model does not go with the objective, or the parent's companions
    are others.
    """
    make = recipe.objective.facts.get("companions")
    if make is None:
        return None
    device = next(model.parameters()).device
    with seeds.seeded(seeds.derive(recipe.seed, "companions")):
        companions: Companions = make(recipe.objective.config, model, num_classes)
    if parent and parent.state is not None:
        if misfit := _misfit(companions, parent.state):
            raise InvalidInput(misfit + _other_settings(recipe.objective, parent.objective))
        companions.load_state_dict(dict(parent.state), strict=False)
    return companions.to(device)


def _misfit(companions: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Why companions cannot go on with a state, tensors [*shape] by name; "" where they can.

    Factors that an adaptation adds to a copy of the model need not be in the state: they begin as
    the model's do.
    """
    own = companions.state_dict()
    faults = [
        f"{name} is {tuple(state[name].shape)} there, and {tuple(tensor.shape)} here"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults += [f"{name} is missing there" for name in own.keys() - state.keys() if _is_own(name)]
    faults += [f"{name} has no place here" for name in state.keys() - own.keys()]
    if not faults:
        return ""
    first, *others = sorted(faults)
    more = f", and {len(others)} more" if others else ""
    return f"the companions that its parent kept do not fit: {first}{more}"


def _other_settings(own: Section, parent: Section | None) -> str:
    """What to set so that they fit, where that is known."""
    values, before = own.factors(), parent.factors() if parent else {}
    others = [f"{name} {before[name]}" for name in before if before[name] != values.get(name)]
    return f"; give the objective its parent's {', '.join(others)}" if others else ""


def _is_own(name: str) -> bool:
    """Whether no adaptation added it."""
    return ".adaptation." not in name


class MaskStream:
    """Masks of patches, drawn for each step by its name.

    Raises InvalidInput where the model has no patches that could be hidden.
    """

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        make = recipe.objective.facts.get("masks")
        self._masks: TokenMasks | None = make and make(recipe.objective.config, model)
        self._seed = recipe.seed

    def __call__(self, images: Tensor, epoch: int, number: int) -> Tensor | None:
        """Of the images [n, c, h, w] of step `number` (from 0) of an epoch: bool [n, patches];
        None where the objective hides none."""
        if self._masks is None:
            return None
        stream = torch.Generator().manual_seed(seeds.derive(self._seed, "masks", epoch, number))
        shape = (len(images), self._masks.numbers)
        drawn = torch.rand(shape, dtype=torch.float64, generator=stream)
        return self._masks.masks(drawn).to(images.device)


def check_fit(
    recipe: Recipe,
    model: nn.Module,
    num_classes: int,
    *,
    from_scratch: bool,
    parent: ParentCompanions | None = None,
) -> None:
    """Whether all that the objective does before training can be done; the model may be on the meta
    device. Raises InvalidInput."""
    prepare_model(recipe, model, from_scratch=from_scratch)
    MaskStream(recipe, model)
    make_companions(recipe, model, num_classes, parent)
