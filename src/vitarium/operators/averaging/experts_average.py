"""The conversion of experts weights averaging: experts become the one MLP that is their mean."""

import re

import torch

from vitarium.architectures.experts.ewa_vit import PART, EwaVit
from vitarium.architectures.vit.vit import Vit
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


def plain(config: NoConfig, architecture: Section | None) -> Section:
    """The architecture without experts. Raises IncompatibleWeights where it has none."""
    if architecture is None or not isinstance(architecture.config, EwaVit):
        named = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"experts_average needs a model with experts, not {named}")
    factors = architecture.factors(defaults=False)
    shared = {name: factors[name] for name in Vit.model_fields if name in factors}
    return choose("architecture", "vit", **shared)


@operator(
    "experts_average",
    title="Experts averaging",
    models=(1, 1),
    architecture=plain,
    compression="post_training",
    paper="Huang et al. 2023, arXiv 2308.06093",
    tiny_architecture={"name": "ewa_vit", "depth": 2},
)
def experts_average(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Average the experts of an `ewa_vit`, which gives a plain `vit` with the same outputs.

    Yields (name, tensor [*shape]); means are computed in float64, all other tensors stay. Raises
    IncompatibleWeights for a model without experts.
    """
    (model,) = ingredients
    sources: dict[str, list[str]] = {}
    for name in ingredients.shapes:
        sources.setdefault(re.sub(rf"\.{PART}\.\d+\.", ".", name), []).append(name)
    if all(len(names) == 1 for names in sources.values()):
        raise IncompatibleWeights(f"{model.name} has no experts whose weights could be averaged")
    for done, (target, names) in enumerate(sources.items()):
        ingredients.report(done, len(sources))
        tensors = torch.stack([checked(model, name) for name in names])
        yield target, tensors.mean(0, dtype=torch.float64).to(tensors.dtype)
