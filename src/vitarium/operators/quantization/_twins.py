"""What methods of quantization share: their settings, and the way from a plain ViT to its twin."""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.architectures.features import features
from vitarium.architectures.quantized._layers import FloatWeight
from vitarium.architectures.quantized._quantizers import Quantizer, UniformQuantizer
from vitarium.architectures.quantized.quantized_linear import QuantizedHead
from vitarium.architectures.quantized.quantized_vit import (
    Bits,
    NewQuantizer,
    Quantized,
    pack_weights,
    simulated_vit,
)
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.evaluation.data import EvalData
from vitarium.operators.base import (
    ChangeArchitecture,
    Ingredients,
    NamedTensors,
    OperatorLog,
    checked,
)
from vitarium.operators.compression._plain_models import vit_section

_FIRST_AND_LAST = 8
"""Bits of the patch embedding and of the head where the blocks' are given layer by layer."""


class PostTraining(Quantized):
    """Settings of every method."""

    embedding_bits: Bits | None = None
    """Bits of the patch embedding's weights; null: as weight_bits, 8 beside a list of these."""
    head_bits: Bits | None = None
    """Bits of the head's weights and of what it sees; null: as weight_bits and activation_bits, 8
    beside lists of these. A head that is not linear is not quantized."""
    num_images: PositiveInt = 32
    """Images by which ranges are chosen, of the training images; they pass at once."""


def quantized_architecture(config: PostTraining, architecture: Section | None) -> Section:
    """The `quantized_vit` of a plain ViT. Raises IncompatibleWeights for anything else."""
    plain = vit_section(architecture, "quantization")
    embedding = config.embedding_bits or _single(config.weight_bits)
    # with defaults, which are a method's own
    own = {n: v for n, v in config.factors().items() if n in Quantized.model_fields}
    factors = {**plain.factors(defaults=False), **own, "embedding_bits": embedding}
    factors.pop("name")
    try:
        return choose("architecture", "quantized_vit", **factors)
    except InvalidConfig as error:
        raise IncompatibleWeights(f"it cannot be quantized so: {error}") from None


def quantized_head(config: PostTraining, head: Section | None) -> Section:
    """The `quantized_linear` in place of a linear head; any other stays."""
    if head is not None and head.name != "linear":
        return head
    weights = config.head_bits or _single(config.weight_bits)
    activations = config.activation_bits
    if activations is not None:
        activations = config.head_bits or _single(activations)
    bits = {"weight_bits": weights, "activation_bits": activations}
    return choose("head", "quantized_linear", **bits, execution=config.execution)


def _single(bits: int | tuple[int, ...]) -> int:
    return _FIRST_AND_LAST if isinstance(bits, tuple) else bits


@dataclass
class Twin:
    """A model on its way to be quantized, and what it is compared with."""

    model: nn.Module
    """The twin, with weights in floating point (`simulated_vit`). Its head is quantized where it is
    linear; else there is none, and it gives features."""
    original: nn.Module
    """What it is made of, as it runs."""
    images: Tensor
    """Of the training images, to fit ranges to: [n, c, h, w]"""
    examples: EvalData
    """All of the training images."""
    head: dict[str, Tensor]
    """Tensors of a head that is not quantized, by name."""

    @torch.no_grad()
    def packed(self, log: OperatorLog) -> NamedTensors:
        """What is stored of the twin, whose weights become integers.

        Logs `feature_error`: the root of the mean squared difference of both models' features of
        the images, as a share of that of the original's.
        """
        pack_weights(self.model)
        expected = features(self.original, self.images)
        error = features(self.model, self.images) - expected
        log.metrics["feature_error"] = float(error.norm() / expected.norm())
        for name, tensor in {**self.model.state_dict(), **self.head}.items():
            yield name, tensor.cpu()


def simulated_twin(
    config: PostTraining,
    ingredients: Ingredients,
    *,
    architecture: ChangeArchitecture = quantized_architecture,
    weights: NewQuantizer = UniformQuantizer,
    activations: NewQuantizer = UniformQuantizer,
) -> Twin:
    """A model's twin whose quantizers are not fitted, of the architecture that this gives.

    Raises IncompatibleWeights for what is no plain ViT, and for entries that are not finite.
    """
    (model,) = ingredients
    tensors = {name: checked(model, name) for name in ingredients.in_turn()}
    subject = ingredients.subject(0)
    assert subject.origin is not None
    vit: Any = architecture(config, subject.origin.architecture).config
    twin: Any = simulated_vit(vit, 0, weights=weights, activations=activations)
    head = quantized_head(config, subject.origin.head).config
    if isinstance(head, QuantizedHead) and "head.weight" in tensors:
        outputs, width = tensors["head.weight"].shape
        twin.head = head.simulated(nn.Linear(width, outputs), weights, activations)
    names = twin.state_dict().keys()
    rest = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    for name, tensor in tensors.items():
        own = name if name in names else f"{name}.values"
        if own in names:
            twin.state_dict()[own].copy_(tensor)
            rest.pop(name, None)
    images = next(subject.examples.first(config.num_images).batches(config.num_images)).images
    twin.to(images.device).requires_grad_(False).eval()
    return Twin(twin, subject.model, images, subject.examples, rest)


def fit_activations(twin: Twin) -> None:
    """Fit all quantizers of activations, each to what the quantized layers before it give."""
    quantizers = activation_quantizers(twin.model)
    for quantizer in quantizers:
        quantizer.fitting = True
    with torch.no_grad():
        twin.model(twin.images)
    for quantizer in quantizers:
        quantizer.fitting = False


def activation_quantizers(model: nn.Module) -> list[Quantizer]:
    """All quantizers of a model but those of weights."""
    of_weights = {part.quantizer for part in model.modules() if isinstance(part, FloatWeight)}
    parts = model.modules()
    return [part for part in parts if isinstance(part, Quantizer) and part not in of_weights]
