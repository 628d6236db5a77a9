"""Shift consistency: share of images with the same predicted class after random shifts."""

import torch
from pydantic import Field, NonNegativeInt

from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.robustness import _perturbation as perturbation


class ShiftConsistency(perturbation.Perturbing):
    max_shift: NonNegativeInt | None = None
    """Largest shift in each direction, in pixels, drawn uniformly; none: an eighth of the image's
    shorter side."""
    shifts: int = Field(8, ge=2)
    """Number of shifted versions of each image, each a forward pass."""
    mode: perturbation.Fill = "circular"
    """What fills the uncovered pixels: those that left on the other side (circular), the border's
    last pixel (edge), or black (zero)."""


@measure(
    "shift_consistency",
    unit="fraction",
    quick=False,
    paper="Zhang 2019, arXiv 1904.11486; Ding et al. 2023, arXiv 2306.07470",
)
def shift_consistency(config: ShiftConsistency, subject: EvalModel) -> Values:
    """Shift consistency: share of images with the same predicted class after two random shifts.

    Parts: "" that share, over all pairs of an image's shifts; "accuracy", the mean over shifts;
    "worst", the share of images that are right after every shift; "clean", unshifted.
    """
    subject.check_classifier()
    examples = subject.examples.first(config.num_images)
    reach = config.max_shift if config.max_shift is not None else min(examples.input_size[1:]) // 8
    sums = dict.fromkeys(("", "accuracy", "worst", "clean"), 0.0)
    for batch in perturbation.pixel_batches(examples, config.batch_size):
        generators = perturbation.streams(config.seed, "shifts", batch.indices)
        shape = (config.shifts, 2)
        drawn = [torch.randint(-reach, reach + 1, shape, generator=g) for g in generators]
        steps = torch.stack(drawn, dim=1).to(batch.pixels.device)
        moves = [(step[:, 0], step[:, 1]) for step in steps]
        versions = (perturbation.shifted(batch.pixels, *move, config.mode) for move in moves)
        classes = torch.stack([perturbation.classes_of(subject, pixels) for pixels in versions])
        right = (classes == batch.labels).double()
        same = (classes[:, None] == classes).double()
        pairs = config.shifts * (config.shifts - 1)
        sums[""] += float(((same.sum((0, 1)) - config.shifts) / pairs).sum())
        sums["accuracy"] += float(right.mean(0).sum())
        sums["worst"] += float(right.amin(0).sum())
        sums["clean"] += int((perturbation.classes_of(subject, batch.pixels) == batch.labels).sum())
    return {part: total / len(examples) for part, total in sums.items()}
