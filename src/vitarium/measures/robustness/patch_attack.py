"""Fooling rate of adversarial patches."""

import torch
from torch import Tensor

from vitarium.evaluation.inputs import EvalModel, Values
from vitarium.measures.base import measure
from vitarium.measures.robustness._attention_temperature import attention_temperature
from vitarium.measures.robustness._patches import (
    AttackSettings,
    PatchGrid,
    class_objective,
    patch_grid,
)
from vitarium.measures.robustness._perturbation import (
    Outcome,
    PixelBatch,
    ascend,
    classes_of,
    drawn,
    pixel_batches,
    streams,
)


class PatchAttack(AttackSettings):
    """The defaults are some ten thousand passes of one image, forward and backward."""


@measure(
    "patch_attack",
    unit="fraction",
    title="patch attack",
    quick=False,
    paper="Gu, Tresp & Qin 2022, arXiv 2111.10659",
    tiny={"steps": 2},
)
def patch_attack(config: PatchAttack, subject: EvalModel) -> Values:
    """Share of the right classes that an adversarial patch makes wrong.

    Projected gradient ascent of the cross-entropy by signs, from noise, inside the
    patches of each image that is classified rightly. It has fooled the model if any step has.

    Parts: "" that share (the fooling rate); "accuracy" under attack; "clean" without.
    Raises NotApplicable where the model is no classifier, has no right class, no patches, or,
    with a temperature, no attention as timm's.
    """
    subject.check_classifier()
    grid = patch_grid(subject, config.size)
    outcome = Outcome(subject)
    with attention_temperature(subject, config.temperature):
        for batch in pixel_batches(subject.examples.first(config.num_images), config.batch_size):
            right = classes_of(subject, batch.pixels) == batch.labels
            changed = batch.pixels.clone()
            if right.any():
                changed[right] = patches_attacked(config, grid, subject, batch.of(right))
            outcome.add(batch.pixels, changed, batch.labels)
    return outcome.values()


def patches_attacked(
    config: AttackSettings, grid: PatchGrid, subject: EvalModel, batch: PixelBatch
) -> Tensor:
    """Pixels [b, c, h, w] of the batch, attacked in the chosen patches.

    Of all steps, the one where another class is ahead the most.
    """
    mask = grid.pixels(grid.chosen(config, batch.indices)).to(batch.pixels.device)
    # Black pixels that the first gradient wants darker would never move: it starts from noise.
    generators = streams(config.seed, "start", batch.indices)
    noise = drawn(torch.rand, batch.pixels.shape[1:], generators).to(batch.pixels)
    return ascend(
        class_objective(subject, batch.labels),
        batch.pixels,
        steps=config.steps,
        step_size=config.step_size,
        epsilon=config.epsilon,
        mask=mask,
        start=config.epsilon * (2 * noise - 1),
    )
