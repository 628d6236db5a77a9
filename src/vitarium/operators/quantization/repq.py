"""RepQ-ViT: quantize channel by channel, then move the scales into weights."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitarium.architectures.quantized._layers import QuantizedLinear
from vitarium.architectures.quantized._quantizers import (
    ACTIVATION_PERCENTILES,
    WEIGHT_PERCENTILES,
    UniformQuantizer,
)
from vitarium.architectures.quantized._softmax_quantizers import SoftmaxQuantizer
from vitarium.architectures.quantized.quantized_vit import fit_weights
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.base import ChangeArchitecture, Ingredients, NamedTensors, operator
from vitarium.operators.quantization._twins import (
    PostTraining,
    Twin,
    fit_activations,
    quantized_architecture,
    quantized_head,
    simulated_twin,
)

weight_quantizer = partial(UniformQuantizer, percentiles=WEIGHT_PERCENTILES)
activation_quantizer = partial(UniformQuantizer, percentiles=ACTIVATION_PERCENTILES)


class RepQ(PostTraining):
    softmax_quantizer: SoftmaxQuantizer = "log_sqrt2"
    """Values that attention probabilities are rounded to; see `quantized_vit`."""


@operator(
    "repq",
    title="RepQ-ViT",
    models=(1, 1),
    split="train",
    architecture=quantized_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Li et al. 2023, arXiv 2212.08254",
    tiny={"num_images": 8},
)
def repq(config: RepQ, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT with a scale for each channel after LayerNorms, moved into the weights.

    Yields (name, tensor [*shape]) of a `quantized_vit`. Ranges are cut at percentiles by the least
    squared error. What a LayerNorm gives to `qkv` and `fc1` is quantized channel by channel first;
    then norm and layer are rescaled so that all channels have one scale (Sec. 4.1). Zero points
    are rounded, which the released code leaves out. Raises IncompatibleWeights for what is no plain
    ViT, and for layers after a norm that have no bias.
    """
    twin = repq_twin(config, ingredients)
    reparameterize(twin.model)
    fit_weights(twin.model)
    yield from twin.packed(ingredients.log)


def repq_twin(
    config: PostTraining,
    ingredients: Ingredients,
    architecture: ChangeArchitecture = quantized_architecture,
) -> Twin:
    """A twin with fitted quantizers, after LayerNorms with one for each channel.

    Raises IncompatibleWeights as `repq`.
    """
    twin = simulated_twin(
        config,
        ingredients,
        architecture=architecture,
        weights=weight_quantizer,
        activations=activation_quantizer,
    )
    for name, (norm, layer) in normed_layers(twin.model).items():
        if layer.bias is None:
            raise IncompatibleWeights(
                f"{ingredients[0].name}: {name} has no bias to shift its inputs by; take a model "
                "with qkv_bias, or round_to_nearest"
            )
        if isinstance(layer.input, UniformQuantizer):
            layer.input = activation_quantizer(
                layer.input.bits, norm.weight.shape, holds_zero=False
            ).to(norm.weight.device)
    fit_weights(twin.model)
    fit_activations(twin)
    return twin


def normed_layers(model: Any) -> dict[str, tuple[nn.LayerNorm, QuantizedLinear]]:
    """The linear layers that see what a LayerNorm gives, by name, each with its norm."""
    pairs: dict[str, tuple[nn.LayerNorm, QuantizedLinear]] = {}
    for number, block in enumerate(model.blocks):
        pairs[f"blocks.{number}.attn.qkv"] = block.norm1, block.attn.qkv
        pairs[f"blocks.{number}.mlp.fc1"] = block.norm2, block.mlp.fc1
    return pairs


def reparameterize(model: nn.Module) -> None:
    """Give all channels after each LayerNorm one scale and zero point, in place.

    Norm and layer change so that they compute the same function, with the same codes.
    """
    for norm, layer in normed_layers(model).values():
        if isinstance(layer.input, UniformQuantizer):
            scale, zero_point = mean_grid(layer.input)
            move_scales(norm, layer, scale, zero_point)


def mean_grid(channels: UniformQuantizer) -> tuple[Tensor, Tensor]:
    """Mean scale and mean zero point of a quantizer of channels, the latter as an integer code."""
    varies = (channels.scale != 1) | (channels.zero_point != 0)  # a channel of zeros does not
    scales, zero_points = channels.scale[varies], channels.zero_point[varies]
    return scales.mean(), zero_points.mean().round().clamp(0, channels.levels - 1)


@torch.no_grad()
def move_scales(
    norm: nn.LayerNorm, layer: QuantizedLinear, scale: Tensor, zero_point: Tensor
) -> None:
    """Replace a layer's quantizer of channels by one with this scale and zero point (scalars).

    With r1 = s / s~ and r2 = z - z~ of the channels (Eq. 9 and 10): the norm's weight becomes
    g / r1 and its bias (b + s r2) / r1; the layer's W diag(r1) and b - W (s r2).
    """
    channels, weight = layer.input, layer.weight.values
    assert isinstance(channels, UniformQuantizer)
    assert isinstance(weight, Tensor)
    ratio = channels.scale / scale
    shift = channels.scale * (channels.zero_point - zero_point)
    norm.weight.div_(ratio)
    norm.bias.add_(shift).div_(ratio)
    layer.bias.sub_(weight @ shift)
    weight.mul_(ratio)
    merged = UniformQuantizer(channels.bits).to(scale)
    merged.scale.copy_(scale)
    merged.zero_point.copy_(zero_point)
    layer.input = merged
