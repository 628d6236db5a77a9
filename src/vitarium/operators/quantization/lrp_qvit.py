"""LRP-QViT: bits of each layer by its relevance for what a ViT predicts."""

from typing import Any

from pydantic import Field
from torch import nn

from vitarium.architectures.quantized._quantizers import MAX_BITS, MIN_BITS
from vitarium.architectures.quantized._softmax_quantizers import SoftmaxQuantizer
from vitarium.architectures.quantized.quantized_vit import LAYERS, Bits, fit_weights
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section
from vitarium.evaluation.inputs import EvalModel
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.compression._plain_models import vit_section
from vitarium.operators.quantization._bit_allocation import allocate_bits, mean_of_bits
from vitarium.operators.quantization._parts import logits_from, outputs_of
from vitarium.operators.quantization._relevance import layer_relevance
from vitarium.operators.quantization._twins import (
    PostTraining,
    quantized_architecture,
    quantized_head,
)
from vitarium.operators.quantization.repq import reparameterize, repq_twin

_BATCH = 8
"""Images at a time of which relevance is propagated."""


class LrpQvit(PostTraining):
    mean_bits: float = Field(4.0, ge=MIN_BITS, le=MAX_BITS)
    """Mean bits of the blocks' weights, over all of them; each layer has 3 to 8. The embedding and
    a linear head have 8 unless the settings say otherwise."""
    weight_bits: tuple[Bits, ...] | None = None  # type: ignore[assignment]
    """Bits of attn.qkv, attn.proj, mlp.fc1 and mlp.fc2 of each block in turn; null: by relevance.
    A list, e.g. of another model, takes its place."""
    activation_bits: tuple[Bits, ...] | None = None
    """Bits of what these layers multiply by weights; null: those of their weights."""
    softmax_quantizer: SoftmaxQuantizer = "log_sqrt2"
    """Values that attention probabilities are rounded to; see `quantized_vit`."""


def allocated(config: LrpQvit, subject: EvalModel) -> LrpQvit:
    """The settings with the bits of all layers, by the relevance of a model's layers.

    Raises IncompatibleWeights for what is no plain ViT with a linear head.
    """
    bits = config.weight_bits or relevant_bits(config, subject)
    return config.model_copy(
        update={"weight_bits": bits, "activation_bits": config.activation_bits or bits}
    )


def relevant_bits(config: LrpQvit, subject: EvalModel) -> tuple[int, ...]:
    """Bits of each layer of the blocks, in the order of `LAYERS` in each block.

    A layer's importance is the positive relevance that it receives for the predicted class, as a
    share of that of all, on average over images; see `layer_relevance` and `allocate_bits`.
    """
    if subject.origin is not None:
        vit_section(subject.origin.architecture, "lrp_qvit")
    model: Any = subject.model
    if not isinstance(model.head, nn.Linear):
        raise IncompatibleWeights(
            "lrp_qvit explains logits of a linear head, which it does not have; name weight_bits"
        )
    names = [f"blocks.{block}.{layer}" for block in range(len(model.blocks)) for layer in LAYERS]
    sums = dict.fromkeys(names, 0.0)
    for batch in subject.examples.first(config.num_images).batches(_BATCH):
        classes = outputs_of(logits_from(model, -1), batch.images).argmax(1)
        for name, received in layer_relevance(model, batch.images, classes).items():
            if name in sums:
                sums[name] += float(received.sum())
    total = sum(sums.values())
    importances = {name: value / total for name, value in sums.items()}
    bits = allocate_bits(importances, layer_sizes(model), config.mean_bits)
    return tuple(bits[name] for name in names)


def layer_sizes(model: Any) -> dict[str, int]:
    """Weights of each layer of a ViT's blocks, by name."""
    return {
        f"blocks.{number}.{layer}": block.get_submodule(layer).weight.numel()
        for number, block in enumerate(model.blocks)
        for layer in LAYERS
    }


def mixed_architecture(config: LrpQvit, architecture: Section | None) -> Section:
    """As `quantized_architecture`; before `allocated` has set the bits, with 8 everywhere."""
    if config.weight_bits is None:
        config = config.model_copy(update={"weight_bits": MAX_BITS, "activation_bits": MAX_BITS})
    return quantized_architecture(config, architecture)


@operator(
    "lrp_qvit",
    title="LRP-QViT",
    models=(1, 1),
    split="train",
    settled=allocated,
    architecture=mixed_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Ranjan & Savakis 2024, arXiv 2401.11243",
    tiny={"num_images": 8, "mean_bits": 5},
)
def lrp_qvit(config: LrpQvit, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT as RepQ-ViT, with more bits in layers of which more relevance comes.

    Yields (name, tensor [*shape]) of a `quantized_vit`; its operator's `weight_bits` say what was
    allocated. Relevance is propagated by the rules of Chefer et al. 2021. How it becomes bits is
    our own: of what the paper writes its abstract alone was read. `mean_bits` is logged. Raises
    IncompatibleWeights as `repq`, and for a head that is not linear.
    """
    twin = repq_twin(config, ingredients, mixed_architecture)
    bits = dict(zip(layer_sizes(twin.original), config.weight_bits or (), strict=True))
    mean = mean_of_bits(bits, layer_sizes(twin.original))
    ingredients.log.metrics["mean_bits"] = mean
    ingredients.log.lines.append(f"{mean:.3g} bits of a weight in the blocks")
    reparameterize(twin.model)
    fit_weights(twin.model)
    yield from twin.packed(ingredients.log)
