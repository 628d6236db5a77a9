"""A plain ViT whose weights are integers, and which rounds what its layers multiply."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.quantized._layers import (
    Execution,
    FloatWeight,
    QuantizedAttention,
    QuantizedConv2d,
    QuantizedLinear,
)
from vitarium.architectures.quantized._quantizers import (
    MAX_BITS,
    MIN_BITS,
    Quantizer,
    UniformQuantizer,
)
from vitarium.architectures.quantized._softmax_quantizers import (
    SoftmaxQuantizer,
    softmax_quantizer,
)
from vitarium.architectures.vit.vit import TRAINING_FACTORS, PlainVit, attend_by_cosines
from vitarium.core.config import Config

Bits = Annotated[int, Field(ge=MIN_BITS, le=MAX_BITS)]
LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""The linear layers of each block, in the order of bits that are given layer by layer."""
FIXED_WEIGHTS = (
    "a quantized_vit stores its weights as integers, which are neither trained nor combined: train "
    "or combine what it was made of, and quantize the result"
)


class Quantized(Config):
    """Settings of a model of which numbers are quantized."""

    weight_bits: Bits | tuple[Bits, ...] = 8
    """Bits of the blocks' weights, 3 to 8; a list has those of attn.qkv, attn.proj, mlp.fc1 and
    mlp.fc2 of each block in turn."""
    activation_bits: Bits | tuple[Bits, ...] | None = 8
    """Bits of what the blocks' layers multiply by weights, 3 to 8, or a list as of `weight_bits`;
    queries, keys, values and attention probabilities have those of attn.qkv. Null: not rounded."""
    softmax_quantizer: SoftmaxQuantizer = "uniform"
    """Values that attention probabilities are rounded to: equal steps (uniform), powers of 2 (log2)
    or of its root (log_sqrt2), powers of 2 shifted (shift_log2), steps of a tangent, fine near 0
    and near the largest value (tangent), or a fine and a coarse uniform grid (twin)."""
    execution: Execution = "simulated"
    """How linear layers compute: in floating point with the numbers that integers stand for
    (simulated), or with integers of 8 bits (int8; on CPUs, whatever their bits)."""


class QuantizedVit(PlainVit, Quantized):
    """A ViT of integers; the sizes are those of ViT-Ti/16 by default.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    embedding_bits: Bits | None = 8
    """Bits of the patch embedding's weights, 3 to 8; null: not quantized. Images never are."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        for name in ("weight_bits", "activation_bits"):
            bits, count = getattr(self, name), self.depth * len(LAYERS)
            if isinstance(bits, tuple) and len(bits) != count:
                yield f"{name} has {len(bits)} numbers; {self.depth} blocks have {count} layers"
        if self.execution == "int8" and self.activation_bits is None:
            yield "execution 'int8' multiplies integers: it needs activation_bits"

    @property
    def fixed_weights(self) -> str:
        """See the base."""
        return FIXED_WEIGHTS

    def layer_bits(self, block: int, layer: str) -> tuple[int, int | None]:
        """Of weights and of activations, for a block's number and one of `LAYERS`."""
        number = block * len(LAYERS) + LAYERS.index(layer)
        weights, activations = self.weight_bits, self.activation_bits
        return (
            weights[number] if isinstance(weights, tuple) else weights,
            activations[number] if isinstance(activations, tuple) else activations,
        )


NewQuantizer = Callable[..., UniformQuantizer]
"""`(bits, shape) -> quantizer`, with a scale for each entry of a shape."""


def simulated_vit(
    config: QuantizedVit,
    num_outputs: int,
    *,
    weights: NewQuantizer = UniformQuantizer,
    activations: NewQuantizer = UniformQuantizer,
) -> VisionTransformer:
    """A `quantized_vit` before its weights are packed: `FloatWeight`s, each with its quantizer.

    The quantizers are to be fitted (`fit`), and weights packed (`pack_weights`); between the two a
    method may change both. The head is that of the plain ViT. `weights` and `activations` make the
    uniform quantizers.
    """
    model = VisionTransformer(
        **config.arguments(), attn_layer=QuantizedAttention, num_classes=num_outputs
    )
    if config.attention == "cosine":
        attend_by_cosines(model)
    embedding: Any = model.patch_embed
    rows = (len(embedding.proj.weight), 1, 1, 1)
    weight = weights(config.embedding_bits, rows) if config.embedding_bits else None
    embedding.proj = QuantizedConv2d(embedding.proj, weight)
    for number, block in enumerate(model.blocks):
        for name in LAYERS:
            weight_bits, activation_bits = config.layer_bits(number, name)
            layer: Any = block.get_submodule(name)
            inputs = activations(activation_bits, ()) if activation_bits else None
            weight = weights(weight_bits, (layer.out_features, 1))
            block.set_submodule(name, QuantizedLinear(layer, weight, inputs))
        attention: Any = block.attn
        if bits := config.layer_bits(number, "attn.qkv")[1]:
            attention.probabilities = softmax_quantizer(config.softmax_quantizer, bits)
            for name in ("queries", "keys", "values"):
                setattr(attention, name, activations(bits, ()))
    return model


def fit_weights(model: nn.Module) -> None:
    """Fit the quantizer of every `FloatWeight` of a model to it."""
    for part in model.modules():
        if isinstance(part, FloatWeight) and isinstance(part.quantizer, Quantizer):
            part.quantizer.fit(part.values.detach())


def pack_weights(model: nn.Module) -> None:
    """Replace every `FloatWeight` that has a quantizer by its integers, in place."""
    for name, part in list(model.named_modules()):
        if isinstance(part, FloatWeight) and isinstance(part.quantizer, Quantizer):
            model.set_submodule(name, part.packed())


def set_execution(model: nn.Module, execution: Execution) -> None:
    """Let the linear layers of a quantized model compute in floating point or in integers."""
    for part in model.modules():
        if isinstance(part, QuantizedLinear):
            part.execution = execution


@architecture(
    "quantized_vit",
    symmetries="its weights are integers with a scale for each row, which no rotation keeps",
    training_factors=(*TRAINING_FACTORS, "init_values", "execution"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def quantized_vit(config: QuantizedVit, num_outputs: int) -> nn.Module:
    """A plain ViT with weights stored as integers of 3 to 8 bits, and quantized activations."""
    model = simulated_vit(config, num_outputs)
    fit_weights(model)
    pack_weights(model)
    set_execution(model, config.execution)
    return model
