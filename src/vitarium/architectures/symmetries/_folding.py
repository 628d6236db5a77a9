"""Fold norms' scales and shifts into their neighbors, so that the units between can be mixed.

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
    symmetries: Symmetries, weights: Mapping[str, Tensor], *, center: bool = True
) -> dict[str, Tensor]:
    """The same function with norms that neither scale nor shift: tensors [*shape] by name, float64.

    Centered, all that writes to a normed group or reads it has mean zero over its units: what norms
    take out anyway does not count in an inner product of two models. Raises IncompatibleWeights
    where a norm shifts what a layer without bias reads.
    """
    contiguous = torch.contiguous_format
    tensors = {n: tensor.double().clone(memory_format=contiguous) for n, tensor in weights.items()}
    for norm in symmetries.norms:
        scale = tensors[norm.weight]
        shift = tensors[norm.bias] if norm.bias else torch.zeros_like(scale)
        for weight, bias in norm.readers:
            _add(tensors, bias, _columns(tensors[weight], scale) @ shift, weight)
            tensors[weight] = _scaled(tensors[weight], scale)
        tensors[norm.weight] = torch.ones_like(scale)
        if norm.bias:
            tensors[norm.bias] = torch.zeros_like(shift)
    for layer_scale in symmetries.scales:
        for name in filter(None, layer_scale.writer):
            tensors[name] = _rows(tensors[name], tensors[layer_scale.weight])
        tensors[layer_scale.weight] = torch.ones_like(tensors[layer_scale.weight])
    for group in {norm.group for norm in symmetries.norms if center}:
        for piece, axis in symmetries.having(group):
            if not piece.elementwise:
                part = piece.of(tensors)
                piece.put(part - part.mean(axis, keepdim=True), tensors[piece.tensor])
    return tensors


def unfolded(
    symmetries: Symmetries, weights: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The same function as folded weights, with the norms and layer scales of another model.

    A mean of models that share norms and scales is the folded models' mean: aligned in folded form
    they can be averaged as ordinary ones. Tensors [*shape] by name, float64. Raises
    IncompatibleWeights where the other has a factor of zero, or shifts what no bias can take up.
    """
    tensors = {name: tensor.double().clone() for name, tensor in weights.items()}
    reference = {name: like[name].double() for name in factors(symmetries)}
    for norm in symmetries.norms:
        scale = _nonzero(norm.weight, reference[norm.weight])
        shift = reference[norm.bias] if norm.bias else torch.zeros_like(scale)
        for weight, bias in norm.readers:
            tensors[weight] = _scaled(tensors[weight], 1 / scale)
            _add(tensors, bias, -(_columns(tensors[weight], scale) @ shift), weight)
    for layer_scale in symmetries.scales:
        for name in filter(None, layer_scale.writer):
            scale = _nonzero(layer_scale.weight, reference[layer_scale.weight])
            tensors[name] = _rows(tensors[name], 1 / scale)
    return tensors | reference


def factors(symmetries: Symmetries) -> list[str]:
    """The tensors that are folded: of norms, and layer scales."""
    norms = [name for norm in symmetries.norms for name in (norm.weight, norm.bias) if name]
    return norms + [layer_scale.weight for layer_scale in symmetries.scales]


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """Columns times a factor of their unit."""
    return weight * scale.repeat(weight.shape[1] // len(scale))


def _rows(tensor: Tensor, scale: Tensor) -> Tensor:
    """Rows, or entries of a bias, times a factor of their unit."""
    return tensor * scale.view(-1, *[1] * (tensor.ndim - 1))


def _columns(weight: Tensor, like: Tensor) -> Tensor:
    """The sum of the columns of each unit, [rows, units]."""
    return weight.reshape(len(weight), -1, len(like)).sum(1)


def _add(tensors: dict[str, Tensor], bias: str | None, shift: Tensor, weight: str) -> None:
    if bias:
        tensors[bias] = tensors[bias] + shift
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
