"""Fold norms' scales and shifts into their neighbours, so that the units between can be mixed.

LayerNorm(x) = rms(x M) * weight + bias with M = I - 11'/n: the scale and the shift belong to the
linear layers that read it, and M to those that write to what it norms (Ashkboos et al. 2024, arXiv
2401.15024, Sec. 3.2; Theus et al. 2025, arXiv 2506.22712, Sec. 4). What is left computes the same
function, as an ordinary model whose norms scale by one; orthogonal maps that keep the all-ones
direction then change nothing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core.errors import IncompatibleWeights


def folded(
    symmetries: Symmetries, weights: Mapping[str, Tensor], *, centre: bool = True
) -> dict[str, Tensor]:
    """The same function with norms that neither scale nor shift; float64.

    Centred, all that writes to a normed group or reads it has mean zero over its units: without
    what the norms take out anyway, nothing counts in an inner product of two models that does not
    count in what they compute. Raises IncompatibleWeights where a norm shifts what a layer without
    bias reads.
    """
    found = _doubles(weights)
    for norm in symmetries.norms:
        scale = found[norm.weight]
        shift = found[norm.bias] if norm.bias else torch.zeros_like(scale)
        for weight, bias in norm.readers:
            _add(found, bias, _columns(found[weight], scale) @ shift, weight)
            found[weight] = _scaled(found[weight], scale)
        found[norm.weight] = torch.ones_like(scale)
        if norm.bias:
            found[norm.bias] = torch.zeros_like(shift)
    for one in symmetries.scales:
        for name in filter(None, one.writer):
            found[name] = _rows(found[name], found[one.weight])
        found[one.weight] = torch.ones_like(found[one.weight])
    for group in {norm.group for norm in symmetries.norms if centre}:
        for piece, place in symmetries.having(group):
            if not piece.elementwise:
                part = piece.of(found)
                rows = found[piece.tensor][piece.start : piece.stop]
                rows.copy_((part - part.mean(place, keepdim=True)).reshape(rows.shape))
    return found


def unfolded(
    symmetries: Symmetries, weights: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The same function as folded weights, with the norms and layer scales of another model.

    A mean of models that share norms and scales is the folded models' mean, so what is aligned in
    folded form can be kept, and averaged, as an ordinary model. float64. Raises IncompatibleWeights
    where the other model has a factor of zero, or shifts what a layer without bias reads.
    """
    found = _doubles(weights)
    given = {name: like[name].double() for name in factors(symmetries)}
    for norm in symmetries.norms:
        scale = _nonzero(norm.weight, given[norm.weight])
        shift = given[norm.bias] if norm.bias else torch.zeros_like(scale)
        for weight, bias in norm.readers:
            found[weight] = _scaled(found[weight], 1 / scale)
            _add(found, bias, -(_columns(found[weight], scale) @ shift), weight)
    for one in symmetries.scales:
        for name in filter(None, one.writer):
            found[name] = _rows(found[name], 1 / _nonzero(one.weight, given[one.weight]))
    return found | given


def factors(symmetries: Symmetries) -> list[str]:
    """The tensors that are folded: of norms, and layer scales."""
    norms = [name for norm in symmetries.norms for name in (norm.weight, norm.bias) if name]
    return norms + [one.weight for one in symmetries.scales]


def _doubles(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double().clone() for name, tensor in weights.items()}


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """Columns times a factor of their unit."""
    return weight * scale.repeat(weight.shape[1] // len(scale))


def _rows(tensor: Tensor, scale: Tensor) -> Tensor:
    """Rows, or entries of a bias, times a factor of their unit."""
    return tensor * scale.view(-1, *[1] * (tensor.ndim - 1))


def _columns(weight: Tensor, like: Tensor) -> Tensor:
    """The sum of the columns of each unit, [rows, units]."""
    return weight.reshape(len(weight), -1, len(like)).sum(1)


def _add(found: dict[str, Tensor], bias: str | None, shift: Tensor, weight: str) -> None:
    if bias:
        found[bias] = found[bias] + shift
    elif shift.any():
        raise IncompatibleWeights(
            f"the norm before {weight} shifts its inputs, and that layer has no bias to fold the "
            "shift into; align by permutations, or grow models with qkv_bias"
        )


def _nonzero(name: str, factors: Tensor) -> Tensor:
    if not factors.all():
        raise IncompatibleWeights(
            f"{name} of the model to align with has entries of zero: what the other model does "
            "there cannot be written with them; align by permutations"
        )
    return factors
