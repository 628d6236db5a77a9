"""Distance and cosine of weights, for all pairs of a population at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from vitarium.evaluation.scope import Scope
from vitarium.measures.base import Config, Matrices, NotApplicable, Weights, measure
from vitarium.measures.weights._products import not_comparable, products


class WeightPairs(Config):
    scope: Scope = "trunk"
    """Tensors that are compared: trunk leaves out the heads, whose shapes differ between tasks; all
    includes them."""
    parts: Literal["whole", "tensors"] = "whole"
    """Whether to give one number per pair (whole), or one for each tensor, too; for all pairs of
    many models these are many."""


class WeightL2(WeightPairs):
    relative: bool = False
    """Divide by the mean of the two models' norms."""


class WeightCosine(WeightPairs):
    of: Literal["weights", "changes"] = "weights"
    """Vectors that are compared: the weights, or their changes since a common parent."""


def _l2_reason(config: WeightL2, first: Weights, second: Weights) -> str | None:
    zero = f"{first.name} and {second.name} are zero" if config.relative else None
    return not_comparable(config.scope, first, second) or zero


def _cosine_reason(config: WeightCosine, first: Weights, second: Weights) -> str | None:
    if config.of == "changes":
        names = [_parent_name(model) for model in (first, second)]
        for model, name in zip((first, second), names, strict=True):
            if name is None:
                return f"{model.name} has no parent whose weights are known"
        if names[0] != names[1]:
            return f"{first.name} was trained from {names[0]}, and {second.name} from {names[1]}"
        for model in (first, second):
            if reason := not_comparable(config.scope, model, model.parent):
                return reason
    what = "is zero" if config.of == "weights" else "is as its parent"
    return not_comparable(config.scope, first, second) or f"{first.name} or {second.name} {what}"


@measure(
    "weight_l2",
    unit="norm",
    title="weights (L2)",
    as_distance="square",
    reason=_l2_reason,
    studies=True,
    heat_map=True,
    paper="Schürholt et al. 2022, Model Zoos, arXiv 2209.14764",
)
def weight_l2(config: WeightL2, models: Sequence[Weights]) -> Matrices:
    """Euclidean distance of two models' weights, of all and of each tensor, without alignment.

    Matrices [models, models] by part, "" the whole. NaN where a tensor is not in both models with
    the same shape: there the whole is NaN, too.
    """

    def distances(gram: Tensor) -> Tensor:
        squares = gram.diagonal()
        distances = (squares[:, None] + squares - 2 * gram).clamp(min=0).sqrt()
        if config.relative:
            norms = squares.sqrt()
            distances /= (norms[:, None] + norms) / 2
        return distances

    return _matrices(config, products(models).parts(config.scope), distances)


@measure(
    "weight_cosine",
    unit="cosine",
    title="weights (cosine)",
    as_distance="one_minus",
    reason=_cosine_reason,
    studies=True,
    paper="Schürholt et al. 2022, Model Zoos, arXiv 2209.14764",
)
def weight_cosine(config: WeightCosine, models: Sequence[Weights]) -> Matrices:
    """Cosine of the angle between two models' weights, or of their changes since the parent.

    Matrices [models, models] by part, "" the whole, in [-1, 1]. NaN where a tensor is not in both
    models with the same shape, where one is zero, and between children of different parents.
    """

    def cosines(gram: Tensor) -> Tensor:
        norms = gram.diagonal().sqrt()
        return (gram / norms[:, None] / norms).clamp(-1, 1)

    changes = config.of == "changes"
    grams = _of_changes(config, models) if changes else products(models).parts(config.scope)
    return _matrices(config, grams, cosines)


def _matrices(
    config: WeightPairs, grams: Iterable[tuple[str, Tensor]], value: Callable[[Tensor], Tensor]
) -> Matrices:
    """The value of each Gram matrix [models, models] that is asked for, NaN where not finite."""
    matrices = {}
    for part, gram in grams:
        if not part or config.parts == "tensors":
            matrix = value(gram)
            matrices[part] = matrix.where(matrix.isfinite(), torch.nan)
    return matrices


def _of_changes(config: WeightCosine, models: Sequence[Weights]) -> Iterator[tuple[str, Tensor]]:
    """Products of what training changed: <a - p, b - p> from those of a, b and their parent p."""
    parents = {model.parent.name: model.parent for model in models if _parent_name(model)}
    if not parents:
        raise NotApplicable("none of the models has a parent whose weights are known")
    index_of = {name: len(models) + number for number, name in enumerate(parents)}
    names = [_parent_name(model) for model in models]
    # a model without a parent stands for its own, and is struck out below
    of = torch.tensor([index_of[n] if n else number for number, n in enumerate(names)])
    common = torch.tensor([[a is not None and a == b for b in names] for a in names])
    children = slice(len(models))
    for part, gram in products([*models, *parents.values()]).parts(config.scope):
        across = gram[children, children] - gram[children, of]
        changes = across - gram[of, children] + gram[of][:, of]
        yield part, changes.where(common, torch.nan)


def _parent_name(model: Weights) -> str | None:
    try:
        return model.parent.name
    except NotApplicable:
        return None
