"""DopQ-ViT: quantize a ViT with tangent-shaped steps and scales that outliers do not move."""

import torch
from torch import Tensor

from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.architectures.quantized._softmax_quantizers import SoftmaxQuantizer
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.quantization._three_stages import ThreeStages, reconstructed
from vitarium.operators.quantization._twins import quantized_architecture, quantized_head


class DopQ(ThreeStages):
    softmax_quantizer: SoftmaxQuantizer = "tangent"
    """Values that attention probabilities are rounded to; see `quantized_vit`."""


@operator(
    "dopq",
    title="DopQ-ViT",
    models=(1, 1),
    split="train",
    architecture=quantized_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Yang et al. 2024, arXiv 2408.03291",
    tiny={"num_images": 8, "reconstruction_images": 8, "steps": 2},
)
def dopq(config: DopQ, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT as I&S-ViT, with tangent steps and median scales: our reading of DopQ-ViT.

    Yields (name, tensor [*shape]) of a `quantized_vit`. Of the paper its abstract was read, which
    has no formula of TanQ, the quantizer of attention probabilities (see `TangentQuantizer`). MOSF,
    the scale of all channels after a LayerNorm, is the one with the least mean absolute deviation
    from the channels' scales: the median. Blocks are reconstructed as in `is_vit`. Raises
    IncompatibleWeights as `repq`.
    """
    yield from reconstructed(config, ingredients, median_grid).packed(ingredients.log)


def median_grid(channels: UniformQuantizer) -> tuple[Tensor, Tensor]:
    """Median scale and zero point of a quantizer of channels, the latter as a code: scalars.

    Of an even number of channels, the lower of the two in the middle: one of the scales.
    """
    zero_point = torch.median(channels.zero_point).round().clamp(0, channels.levels - 1)
    return torch.median(channels.scale), zero_point
