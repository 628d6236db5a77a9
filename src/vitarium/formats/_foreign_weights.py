"""Weights of a foreign model on their way into a zoo: do they fit, and is each tensor whole."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from vitarium.core.errors import IncompatibleWeights
from vitarium.formats.base import ForeignEpoch, ForeignModel


def read_epoch(
    model: ForeignModel, epoch: ForeignEpoch, expected: Mapping[str, torch.Size] | None
) -> dict[str, Tensor]:
    """An epoch's weights, each tensor with memory of its own, as they are stored in a zoo.

    Args:
        expected: names and shapes of the architecture's tensors; None: they are not checked.

    Raises IncompatibleWeights that names model, epoch and tensor, and what `epoch.load` raises.
    """
    assert epoch.load
    weights = epoch.load()
    for fault in _misfits(weights, expected) if expected is not None else ():
        raise IncompatibleWeights(
            f"{model.named}, epoch {epoch.number}: these weights do not fit the architecture that "
            f"it is said to have: {fault}"
        )
    return dict(_unshared(weights))


def _misfits(weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> Iterator[str]:
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing:
        yield f"{_listed(missing)} missing"
    if unknown:
        yield f"{_listed(unknown)} unknown"
    for name in sorted(expected.keys() & weights.keys()):
        if weights[name].shape != expected[name]:
            yield f"{name} is {list(weights[name].shape)}, not {list(expected[name])}"


def _listed(names: Iterable[str], max_names: int = 3) -> str:
    listed = sorted(names)
    return ", ".join(listed[:max_names]) + (
        f" and {len(listed) - max_names} more" * (len(listed) > max_names)
    )


def _unshared(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tied tensors share memory in a pickle, but safetensors writes each by itself."""
    storages: set[int] = set()
    for name, tensor in weights.items():
        storage = tensor.untyped_storage().data_ptr()
        yield name, tensor.clone() if storage in storages else tensor
        storages.add(storage)
