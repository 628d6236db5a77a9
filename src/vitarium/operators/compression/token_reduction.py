"""Twins of a plain ViT with fewer tokens: its own weights in an architecture that reduces them."""

from typing import Any

from vitarium.architectures.token_reduction.evit import TokenDropping
from vitarium.architectures.token_reduction.mctf import MultiCriteriaFusion
from vitarium.architectures.token_reduction.tome import TokenMerging
from vitarium.core.config import Config
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.compression._twins import same_weights, twin_section
from vitarium.zoo import Model


def _by_outputs(config: Config, original: Model, num_outputs: int) -> dict[str, Any]:
    """A twin is taught by its original's outputs: there are fewer tokens than the original has."""
    return {"objective": "soft_distillation"}


_ONE: dict[str, Any] = {"models": (1, 1), "compression": "post_training", "training": _by_outputs}


@operator(
    "evit",
    title="EViT",
    paper="Liang et al. 2022, arXiv 2202.07800",
    architecture=twin_section("evit"),
    tiny={"keep_rate": 0.5},
    **_ONE,
)
def evit(config: TokenDropping, ingredients: Ingredients) -> NamedTensors:
    """Leave out the patches to which the class token attends least, in a few blocks of a ViT.

    Yields (name, tensor [*shape]), the model's own. Raises IncompatibleWeights for a model without
    a class token, and for what is no plain ViT.
    """
    return same_weights(ingredients)


@operator(
    "tome",
    title="ToMe",
    paper="Bolya et al. 2023, arXiv 2210.09461",
    architecture=twin_section("tome"),
    tiny={"r": 1},
    **_ONE,
)
def tome(config: TokenMerging, ingredients: Ingredients) -> NamedTensors:
    """Merge the patches that are most alike, in every block of a ViT.

    Yields (name, tensor [*shape]), the model's own. Raises IncompatibleWeights for what is no plain
    ViT.
    """
    return same_weights(ingredients)


@operator(
    "mctf",
    title="MCTF",
    paper="Lee et al. 2024, arXiv 2403.10030",
    architecture=twin_section("mctf"),
    tiny={"r": 1},
    **_ONE,
)
def mctf(config: MultiCriteriaFusion, ingredients: Ingredients) -> NamedTensors:
    """Fuse patches that are alike, little attended to and small, in most blocks of a ViT.

    Yields (name, tensor [*shape]), the model's own. Raises IncompatibleWeights for what is no plain
    ViT.
    """
    return same_weights(ingredients)
