"""What an operator gives, before it is kept: its dtype, whether a model has it, and by what."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vitarium.core.errors import IncompatibleWeights
from vitarium.evaluation.batch_statistics import is_statistic
from vitarium.operators._runner.buffers import widest
from vitarium.training import TrainOptions
from vitarium.training.options import software

_OF_TRAINING = ("precision", "compiled", "stacked")


def stored(name: str, tensor: Tensor, dtypes: Sequence[torch.dtype], operator: str) -> Tensor:
    """A tensor [*shape] in the widest of its ingredients' dtypes; without any, in its own.

    Raises IncompatibleWeights for entries that are NaN or infinite in it.
    """
    result = tensor.to(widest(dtypes) if dtypes else tensor.dtype)
    entries = result.float() if result.dtype.itemsize == 1 else result
    if result.is_floating_point() and not torch.isfinite(entries).all():
        raise IncompatibleWeights(
            f"{operator} gives {name} entries that are not finite in "
            f"{str(result.dtype).removeprefix('torch.')}: nothing is kept; try milder settings"
        )
    return result


def check_fits(weights: Mapping[str, Tensor], built: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes with those of a built model; `source` says whose weights they are.

    Raises IncompatibleWeights that names the first tensor in which they differ.
    """
    for name in dict.fromkeys([*built, *weights]):
        given, expected = (
            str(list(tensors[name].shape)) if name in tensors else "no such tensor"
            for tensors in (weights, built)
        )
        if given != expected:
            raise IncompatibleWeights(
                f"{source}: {name} is {given}, and its new architecture has {expected}; nothing is "
                "kept"
            )


def fitting(
    weights: Mapping[str, Tensor], built: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Weights [*shape] by name without statistics of batch normalizations that a built model has
    none of. Raises IncompatibleWeights as `check_fits`."""
    weights = {n: t for n, t in weights.items() if n in built or not is_statistic(n)}
    check_fits(weights, built, source)
    return dict(weights)


def software_of(device: str) -> dict[str, str]:
    """With what it is computed, which is not what its ingredients were trained with."""
    facts = software(TrainOptions(device=device))
    return {name: fact for name, fact in facts.items() if name not in _OF_TRAINING}
