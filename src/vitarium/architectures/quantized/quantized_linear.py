"""A linear head of integers."""

from typing import Self

from pydantic import model_validator
from torch import nn

from vitarium.architectures.base import head
from vitarium.architectures.heads import num_features, replace_head
from vitarium.architectures.quantized._layers import Execution, QuantizedLinear
from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.architectures.quantized.quantized_vit import (
    Bits,
    NewQuantizer,
    fit_weights,
    pack_weights,
    set_execution,
)
from vitarium.core.config import Config


class QuantizedHead(Config):
    weight_bits: Bits = 8
    """Bits of its weights, 3 to 8."""
    activation_bits: Bits | None = 8
    """Bits of the features that it sees, 3 to 8; null: not quantized."""
    execution: Execution = "simulated"
    """As of `quantized_vit`."""

    @model_validator(mode="after")
    def _has_integers(self) -> Self:
        if self.execution == "int8" and self.activation_bits is None:
            raise ValueError("execution 'int8' multiplies integers: it needs activation_bits")
        return self

    def simulated(
        self,
        layer: nn.Linear,
        weights: NewQuantizer = UniformQuantizer,
        activations: NewQuantizer = UniformQuantizer,
    ) -> QuantizedLinear:
        """A linear layer with quantizers that are to be fitted; see `simulated_vit`."""
        inputs = activations(self.activation_bits, ()) if self.activation_bits else None
        return QuantizedLinear(layer, weights(self.weight_bits, (layer.out_features, 1)), inputs)


@head("quantized_linear", training_factors=("execution",))
def quantized_linear(config: QuantizedHead, model: nn.Module, num_outputs: int) -> None:
    """A linear classification head whose weights are integers of 3 to 8 bits."""
    layer = config.simulated(nn.Linear(num_features(model), num_outputs))
    fit_weights(layer)
    pack_weights(layer)
    set_execution(layer, config.execution)
    replace_head(model, layer, num_outputs)
