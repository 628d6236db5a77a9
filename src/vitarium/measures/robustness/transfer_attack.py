"""Downstream transfer attack: success of a parent's adversarial images on its child."""

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.evaluation.features import blocks_of
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure
from vitarium.measures.robustness import _perturbation as perturbation


class DownstreamTransferAttack(perturbation.Perturbing):
    epsilon: float = Field(8 / 255, ge=0, le=1)
    """Largest change of a pixel, of pixels in [0, 1]."""
    steps: PositiveInt = 20
    """Steps of the attack; each is a forward and a backward pass of the parent."""
    step_size: float = Field(2 / 255, gt=0, le=1)
    """Change of a pixel per step, of pixels in [0, 1]."""
    layer: NonNegativeInt | None = None
    """Number of the block whose tokens are attacked, from 0; none: the most vulnerable one, found
    by a search."""
    search_images: PositiveInt = 32
    """Number of images for the search of the most vulnerable block."""
    search_steps: PositiveInt = 5
    """Steps of the attack on each block during that search."""


@measure(
    "downstream_transfer_attack",
    unit="fraction",
    part_units={"layer": "block number", "similarity": "cosine"},
    quick=False,
    paper="Zheng et al. 2024, arXiv 2408.01705",
    tiny={"steps": 2},
)
def downstream_transfer_attack(config: DownstreamTransferAttack, subject: EvalModel) -> Values:
    """Downstream transfer attack: share of correct predictions that an attack on the parent flips.

    Projected gradient steps make the mean cosine of the parent's tokens after one block to those of
    the image as it was small. Neither labels nor the fine-tuned model are used. Where no block is
    set, a short attack is made on each, and that whose cosine sinks lowest is taken for all images.

    Parts: see `fooling_rate`; "layer", the block's number; "similarity", the mean cosine there.
    Raises NotApplicable where there is no parent with blocks that takes images of the same size.
    """
    subject.check_classifier()
    if subject.parent is None:
        raise NotApplicable(f"{subject.name}: it has no parent")
    parent = subject.parent()
    sizes = [" x ".join(map(str, model.examples.input_size)) for model in (subject, parent)]
    if sizes[0] != sizes[1]:
        theirs = f"its parent {parent.name} of {sizes[1]}"
        raise NotApplicable(f"{subject.name} takes images of {sizes[0]}, {theirs}")
    layers = list(blocks_of(parent.model, parent.name).values())
    number = config.layer
    if number is not None and number >= len(layers):
        raise NotApplicable(f"{parent.name} has no block {number}, the last is {len(layers) - 1}")
    examples = subject.examples.first(config.num_images)
    if number is None:
        searched = examples.first(config.search_images)
        batches = list(perturbation.pixel_batches(searched, config.batch_size))
        reached = []
        for block in layers:
            cosines = [attacked(config, parent, block, b, config.search_steps)[1] for b in batches]
            reached.append(float(torch.cat(cosines).double().mean()))
        number = min(range(len(layers)), key=reached.__getitem__)
    layer, similarity = layers[number], 0.0

    def attack(batch: perturbation.PixelBatch) -> Tensor:
        nonlocal similarity
        changed, cosines = attacked(config, parent, layer, batch, config.steps)
        similarity += float(cosines.sum(dtype=torch.float64))
        return changed

    values = perturbation.fooling_rate(config, subject, attack)
    return values | {"layer": float(number), "similarity": similarity / len(examples)}


def attacked(
    config: DownstreamTransferAttack,
    parent: EvalModel,
    layer: nn.Module,
    batch: perturbation.PixelBatch,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Pixels [b, c, h, w] perturbed from noise, and the mean cosine of each image's tokens, [b]."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output))

    def tokens(pixels: Tensor) -> Tensor:
        outputs.clear()
        parent.model(parent.examples.normalized(pixels))
        return outputs[-1]

    def objective(pixels: Tensor) -> tuple[Tensor, Tensor]:
        away = -F.cosine_similarity(tokens(pixels), clean, dim=-1).flatten(1).mean(1)
        return away, away

    try:
        with torch.no_grad():
            clean = tokens(batch.pixels)
        changed = perturbation.ascend(
            objective,
            batch.pixels,
            steps=steps,
            step_size=config.step_size,
            epsilon=config.epsilon,
            # at the image itself the cosine is flat
            start=perturbation.start_noise(config.epsilon, config.seed, batch),
        )
        with torch.no_grad():
            _, score = objective(changed)
    finally:
        hook.remove()
    return changed, -score
