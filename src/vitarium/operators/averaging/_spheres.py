"""Means on a sphere: of the models' directions, by the products of their weights alone.

Whatever lies in the span of the models is a combination of them, so the products [models, models]
are all that an angle or a mean needs: of whole vectors they are summed up tensor by tensor.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.base import Ingredients, NamedTensors

Over = Literal["tensor", "vector"]
"""Each tensor is a vector of its own, or all tensors together are one."""

_SWEEPS = 1000


def combined(
    ingredients: Ingredients, over: Over, coefficients: Callable[[str, Tensor], list[float]]
) -> NamedTensors:
    """Combinations of the models by `coefficients(what it is of, products [models, models])`."""
    vector_coefficients = None
    if over == "vector":
        products = sum(_products(tensors) for _, tensors in ingredients.tensors())
        vector_coefficients = coefficients("the whole vector", torch.as_tensor(products))
    for name, tensors in ingredients.tensors():
        model_coefficients = vector_coefficients or coefficients(name, _products(tensors))
        total = torch.zeros(ingredients.shapes[name], dtype=torch.float64)
        for tensor, coefficient in zip(tensors, model_coefficients, strict=True):
            total += coefficient * tensor.double()
        yield name, total


def spherical_mean(
    names: list[str], products: Tensor, weights: list[float], mean: Literal["karcher", "chordal"]
) -> list[float]:
    """Coefficients of the models in the weighted mean of their directions, times their mean norm.

    "chordal" is the direction of the mean of unit vectors; "karcher" the one from which the sum of
    squared angles to the models is least (Karcher 1977), by gradient descent on the sphere from the
    chordal mean. A model that is 0 has no direction, and counts for the norm alone.

    Raises IncompatibleWeights where the directions cancel out.
    """
    share = torch.tensor(weights, dtype=products.dtype, device=products.device)
    share = share / share.sum()
    norms = products.diagonal().clamp(min=0).sqrt()
    inverse = (1 / norms).where(norms > 0, 0)
    cosines = products * inverse[:, None] * inverse

    def normalized(point: Tensor) -> Tensor:
        norm = (point @ cosines @ point).clamp(min=0).sqrt()
        if norm < 1e-8:
            models = ", ".join(names)
            raise IncompatibleWeights(f"{models}: their directions cancel out; there is no mean")
        return point / norm

    share_of_direction = share.where(norms > 0, 0)
    if not share_of_direction.any():
        return [0.0] * len(weights)
    share_of_direction = share_of_direction / share_of_direction.sum()
    point = normalized(share_of_direction)
    for _ in range(_SWEEPS if mean == "karcher" else 0):
        towards = cosines @ point
        angles = towards.clamp(-1, 1).acos()
        # sinc(x / pi) = sin(x) / x; 1 for two equal directions, as it is in the limit
        pull = share_of_direction / torch.sinc(angles / torch.pi).clamp(min=1e-12)
        step = pull - (pull @ towards) * point
        length = (step @ cosines @ step).clamp(min=0).sqrt()
        point = normalized(length.cos() * point + torch.sinc(length / torch.pi) * step)
        if step.abs().max() < 1e-14:
            break
    return (point * inverse * (share @ norms)).tolist()


def _products(tensors: Tensor) -> Tensor:
    flat = tensors.double().reshape(len(tensors), -1)
    return flat @ flat.T
