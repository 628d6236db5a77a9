"""For a while: weights that are not quantized, and parameters that have gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from vitarium.architectures.quantized._layers import FloatWeight


@contextmanager
def exact_weights(model: nn.Module) -> Iterator[None]:
    """Inside, weights are not quantized."""
    parts = [part for part in model.modules() if isinstance(part, FloatWeight)]
    quantizers = [part.quantizer for part in parts]
    for part in parts:
        part.quantizer = nn.Identity()
    try:
        yield
    finally:
        for part, quantizer in zip(parts, quantizers, strict=True):
            part.quantizer = quantizer


@contextmanager
def training(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, gradients are taken by these parameters."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
