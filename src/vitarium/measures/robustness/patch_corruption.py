"""Fooling rate of natural corruptions of single patches."""

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.robustness._corruption_functions import CorruptionName, Strengths, corrupted
from vitarium.measures.robustness._patches import (
    PatchGrid,
    PatchSettings,
    attention_temperature,
    patch_grid,
)
from vitarium.measures.robustness._perturbation import PixelBatch, fooling_rate, streams


class PatchCorruption(PatchSettings):
    """A natural corruption of patches; two forward passes of each image."""

    corruption: CorruptionName = "gaussian_noise"
    """Corruption as in the measure `corruptions`: applied to the whole image, and pasted into the
    patches."""
    severity: int = Field(5, ge=1, le=5)
    """Severity of the corruption, from 1 (weak) to 5 (strong)."""
    strengths: Strengths = "auto"
    """Whose severities are used, as in the measure `corruptions`."""


@measure(
    "patch_corruption", unit="fraction", quick=False, paper="Gu, Tresp & Qin 2022, arXiv 2111.10659"
)
def patch_corruption(config: PatchCorruption, subject: EvalModel) -> Values:
    """Share of correct predictions that corrupted patches make wrong.

    Parts: see `fooling_rate`.
    """
    subject.check_classifier()
    grid = patch_grid(subject, config.size)
    with attention_temperature(subject, config.temperature):
        return fooling_rate(config, subject, partial(patches_corrupted, config, grid))


def patches_corrupted(config: PatchCorruption, grid: PatchGrid, batch: PixelBatch) -> Tensor:
    """Pixels [b, c, h, w] of the batch, corrupted in the chosen patches."""
    mask = grid.pixels(grid.chosen(config, batch.indices)).to(batch.pixels.device)
    generators = streams(config.seed, f"corruption/{config.corruption}", batch.indices)
    how = (config.corruption, config.severity, generators, config.strengths)
    everywhere = corrupted(batch.pixels, *how)
    return torch.where(mask, everywhere, batch.pixels)
