"""Memory that a forward pass takes at most."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitarium.measures.base import Config, EvalModel, Values, measure


class PeakMemory(Config):
    """Of a forward pass in float32, without gradients."""

    batch_size: PositiveInt = 1
    """Images in it."""


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are in memory together, views once."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._storages: set[int] = set()
        self.nbytes = self.peak = 0
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self._count(output)
        return outputs

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, nbytes = storage.data_ptr(), storage.nbytes()
        if nbytes and address not in self._storages:
            self._storages.add(address)
            self.nbytes += nbytes
            self.peak = max(self.peak, self.nbytes)
            weakref.finalize(storage, self._free, address, nbytes)

    def _free(self, address: int, nbytes: int) -> None:
        self._storages.discard(address)
        self.nbytes -= nbytes


@measure("peak_memory", unit="bytes", title="peak memory", quick=False)
def peak_memory(config: PeakMemory, subject: EvalModel) -> Values:
    """Bytes of all tensors that are in memory together in a forward pass, weights included.

    Parts: "" is the peak, "weights" the parameters and buffers in it. What a kernel takes for
    itself while it runs is left out, so that the number is the same on every machine of a kind.
    """
    size = (config.batch_size, *subject.examples.input_size)
    weights = [*subject.model.parameters(), *subject.model.buffers()]
    live = _LiveTensors(weights)
    of_weights = live.nbytes
    with torch.no_grad(), live:
        subject.model(torch.zeros(size, device=subject.examples.device))
    return {"": float(live.peak), "weights": float(of_weights)}
