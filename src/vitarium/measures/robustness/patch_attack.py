"""Fooling rate of adversarial patches."""

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.robustness import _patches as patches
from vitarium.measures.robustness import _perturbation as perturbation


class PatchAttack(patches.PatchSettings):
    """The defaults are some ten thousand passes of one image, forward and backward."""

    steps: PositiveInt = 40
    """Steps of the attack, each a forward and a backward pass; a stronger attack of many more steps
    may fool more."""
    step_size: float = Field(0.05, gt=0, le=1)
    """Change of a pixel per step, of pixels in [0, 1]."""
    epsilon: float = Field(1.0, ge=0, le=1)
    """Largest change of a pixel, of pixels in [0, 1]; 1: no limit."""


@measure(
    "patch_attack",
    unit="fraction",
    quick=False,
    paper="Gu, Tresp & Qin 2022, arXiv 2111.10659",
    tiny={"steps": 2},
)
def patch_attack(config: PatchAttack, subject: EvalModel) -> Values:
    """Patch attack: share of correct predictions that an adversarial patch makes wrong.

    Projected gradient ascent of the cross-entropy by signs, from noise, inside the patches of each
    image that is classified rightly. It has fooled the model if any step has. Parts: see
    `fooling_rate`.
    """
    subject.check_classifier()
    grid = patches.patch_grid(subject, config.size)

    def attack(batch: perturbation.PixelBatch) -> Tensor:
        right = perturbation.classes_of(subject, batch.pixels) == batch.labels
        changed = batch.pixels.clone()
        if right.any():
            changed[right] = patches_attacked(config, grid, subject, batch.of(right))
        return changed

    with patches.attention_temperature(subject, config.temperature):
        return perturbation.fooling_rate(config, subject, attack)


def patches_attacked(
    config: PatchAttack, grid: patches.PatchGrid, subject: EvalModel, batch: perturbation.PixelBatch
) -> Tensor:
    """Pixels [b, c, h, w] attacked in the chosen patches: at the best of all steps."""
    mask = grid.pixels(grid.chosen(config, batch.indices)).to(batch.pixels.device)

    def objective(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits = subject.model(subject.examples.normalized(pixels))
        loss = F.cross_entropy(logits, batch.labels, reduction="none")
        return loss, perturbation.margin(logits, batch.labels)

    return perturbation.ascend(
        objective,
        batch.pixels,
        steps=config.steps,
        step_size=config.step_size,
        epsilon=config.epsilon,
        mask=mask,
        # Black pixels that the first gradient wants darker would never move: it starts from noise.
        start=perturbation.start_noise(config.epsilon, config.seed, batch),
    )
