"""Downstream transfer attack: success of a parent's adversarial images on its child."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import blocks
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.inputs import EvalModel, Values
from vitarium.measures.base import measure
from vitarium.measures.robustness._perturbation import (
    Objective,
    Outcome,
    Perturbing,
    PixelBatch,
    ascend,
    drawn,
    pixel_batches,
    streams,
)


class DownstreamTransferAttack(Perturbing):
    """How strong the attack is, and where in the parent it is made."""

    epsilon: float = Field(8 / 255, ge=0, le=1)
    """The largest change of a pixel, of 1."""
    steps: PositiveInt = 20
    """Each one a forward and a backward pass of the parent."""
    step_size: float = Field(2 / 255, gt=0, le=1)
    """In pixel values, of 1."""
    layer: NonNegativeInt | None = None
    """Number of the block whose tokens are attacked; None: the most vulnerable one."""
    search_images: PositiveInt = 32
    """Images on which the most vulnerable block is looked for."""
    search_steps: PositiveInt = 5
    """Steps of the attack on each block while it is looked for."""


@measure(
    "downstream_transfer_attack",
    unit="fraction",
    title="downstream transfer attack",
    quick=False,
    paper="Zheng et al. 2024, arXiv 2408.01705",
    tiny={"steps": 2},
)
def downstream_transfer_attack(config: DownstreamTransferAttack, subject: EvalModel) -> Values:
    """Share of a fine-tuned model's right classes that an attack on its parent alone makes wrong.

    Images are changed by projected gradient steps so that the parent's tokens after one block
    point elsewhere: their mean cosine to those of the image as it was is made small. Neither
    labels nor the fine-tuned model are used. The block, where none is set, is the same for all
    images: a short attack is made on each, and the most vulnerable is the one whose cosine sinks
    lowest.

    Parts: "" the attack success rate; "accuracy" under attack; "clean" without; "layer", the
    number of the block; "similarity", the mean cosine there.
    Raises NotApplicable where the model is no classifier, has no right class, or no parent with
    blocks that takes images of the same size.
    """
    subject.check_classifier()
    parent = _parent(subject)
    layers = _layers(parent)
    layer = config.layer
    if layer is not None and layer >= len(layers):
        raise NotApplicable(f"{parent.name} has no block {layer}, the last is {len(layers) - 1}")
    examples = subject.examples.first(config.num_images)
    if layer is None:
        batches = list(pixel_batches(examples.first(config.search_images), config.batch_size))
        reached = [_search(config, parent, block, batches) for block in layers]
        layer = min(range(len(layers)), key=reached.__getitem__)
    outcome, similarity = Outcome(subject), 0.0
    for batch in pixel_batches(examples, config.batch_size):
        changed, cosines = attacked(config, parent, layers[layer], batch, config.steps)
        outcome.add(batch.pixels, changed, batch.labels)
        similarity += float(cosines.sum(dtype=torch.float64))
    return outcome.values() | {"layer": float(layer), "similarity": similarity / len(examples)}


def attacked(
    config: DownstreamTransferAttack,
    parent: EvalModel,
    layer: nn.Module,
    batch: PixelBatch,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """The pixels of a batch, perturbed, and the mean cosine of each image's tokens, [b].

    It starts from noise: at the image itself the cosine is flat.
    """
    generators = streams(config.seed, "start", batch.indices)
    noise = drawn(torch.rand, batch.pixels.shape[1:], generators).to(batch.pixels)
    with _recorded(layer) as outputs:
        objective = _away_from(parent, outputs, batch.pixels)
        changed = ascend(
            objective,
            batch.pixels,
            steps=steps,
            step_size=config.step_size,
            epsilon=config.epsilon,
            start=config.epsilon * (2 * noise - 1),
        )
        with torch.no_grad():
            _, score = objective(changed)
    return changed, -score


def _away_from(parent: EvalModel, outputs: list[Tensor], pixels: Tensor) -> Objective:
    """Minus the mean cosine between tokens of changed pixels and of these."""

    def tokens(pixels: Tensor) -> Tensor:
        outputs.clear()
        parent.model(parent.examples.normalized(pixels))
        return outputs[-1]

    with torch.no_grad():
        clean = tokens(pixels)

    def objective(pixels: Tensor) -> tuple[Tensor, Tensor]:
        away = -F.cosine_similarity(tokens(pixels), clean, dim=-1).flatten(1).mean(1)
        return away, away

    return objective


def _search(
    config: DownstreamTransferAttack, parent: EvalModel, layer: nn.Module, batches: list[PixelBatch]
) -> float:
    """The mean cosine after a short attack on a layer."""
    reached = [attacked(config, parent, layer, batch, config.search_steps)[1] for batch in batches]
    return float(torch.cat(reached).double().mean())


def _parent(subject: EvalModel) -> EvalModel:
    if subject.parent is None:
        raise NotApplicable(f"{subject.name}: it has no parent")
    parent = subject.parent()
    parent_size, own_size = parent.examples.input_size, subject.examples.input_size
    if parent_size != own_size:
        raise NotApplicable(
            f"{subject.name} takes images of {_size(own_size)}, its parent {parent.name} of "
            f"{_size(parent_size)}"
        )
    return parent


def _size(size: tuple[int, int, int]) -> str:
    return " x ".join(map(str, size))


def _layers(parent: EvalModel) -> list[nn.Module]:
    try:
        return list(blocks(parent.model).values())
    except InvalidInput as error:
        raise NotApplicable(f"{parent.name}: {error}") from None


@contextmanager
def _recorded(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, each forward pass appends the layer's output."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()
