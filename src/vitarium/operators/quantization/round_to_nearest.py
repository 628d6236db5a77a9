"""Round to nearest: the baseline of post-training quantization."""

from vitarium.architectures.quantized.quantized_vit import fit_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.quantization._twins import (
    PostTraining,
    fit_activations,
    quantized_architecture,
    quantized_head,
    simulated_twin,
)


@operator(
    "round_to_nearest",
    title="Round to nearest",
    models=(1, 1),
    split="train",
    architecture=quantized_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Jacob et al. 2018, arXiv 1712.05877",
    tiny={"num_images": 8},
)
def round_to_nearest(config: PostTraining, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT by rounding: ranges are those of the weights and of a few images' activations.

    Yields (name, tensor [*shape]) of a `quantized_vit`. Weights have a scale for each row,
    activations one for each tensor; ranges are from the smallest to the largest value. Raises
    IncompatibleWeights for what is no plain ViT.
    """
    twin = simulated_twin(config, ingredients)
    fit_weights(twin.model)
    fit_activations(twin)
    yield from twin.packed(ingredients.log)
