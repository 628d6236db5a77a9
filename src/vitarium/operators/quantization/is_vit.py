"""I&S-ViT: quantize a ViT with shifted powers of 2, and reconstruct its blocks in three stages."""

from vitarium.architectures.quantized._softmax_quantizers import SoftmaxQuantizer
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.quantization._three_stages import ThreeStages, reconstructed
from vitarium.operators.quantization._twins import quantized_architecture, quantized_head
from vitarium.operators.quantization.repq import mean_grid


class IsVit(ThreeStages):
    softmax_quantizer: SoftmaxQuantizer = "shift_log2"
    """Values that attention probabilities are rounded to; see `quantized_vit`."""


@operator(
    "is_vit",
    title="I&S-ViT",
    models=(1, 1),
    split="train",
    architecture=quantized_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Zhong et al. 2023, arXiv 2311.10126",
    tiny={"num_images": 8, "reconstruction_images": 8, "steps": 2},
)
def is_vit(config: IsVit, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT and fit each block's weights to what the block computed before.

    Yields (name, tensor [*shape]) of a `quantized_vit`. Attention probabilities are rounded to
    shifted powers of 2 (Sec. 3.2); blocks, the embedding and a linear head are reconstructed in
    three stages (Sec. 3.3). Norms and scales are not trained. Raises IncompatibleWeights as `repq`.
    """
    yield from reconstructed(config, ingredients, mean_grid).packed(ingredients.log)
