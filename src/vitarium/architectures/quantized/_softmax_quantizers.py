"""Quantizers of attention probabilities, by name."""

from collections.abc import Callable, Mapping
from typing import Literal

from vitarium.architectures.quantized._quantizers import (
    LogQuantizer,
    Quantizer,
    ShiftLog2Quantizer,
    UniformQuantizer,
)
from vitarium.architectures.quantized._tangent import TangentQuantizer
from vitarium.architectures.quantized._twin import TwinQuantizer

SoftmaxQuantizer = Literal["uniform", "log2", "log_sqrt2", "shift_log2", "tangent", "twin"]
SOFTMAX_QUANTIZERS: Mapping[str, tuple[Callable[..., Quantizer], dict[str, int]]] = {
    "uniform": (UniformQuantizer, {}),
    "log2": (LogQuantizer, {"steps": 1}),
    "log_sqrt2": (LogQuantizer, {"steps": 2}),
    "shift_log2": (ShiftLog2Quantizer, {}),
    "tangent": (TangentQuantizer, {}),
    "twin": (TwinQuantizer, {}),
}
"""By name the class and its settings beside the bits."""


def softmax_quantizer(name: str, bits: int) -> Quantizer:
    """Of attention probabilities, by its name in `SOFTMAX_QUANTIZERS`."""
    kind, settings = SOFTMAX_QUANTIZERS[name]
    return kind(bits, **settings)
