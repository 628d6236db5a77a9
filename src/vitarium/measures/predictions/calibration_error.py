"""Expected calibration error."""

from typing import Literal

import torch
from pydantic import PositiveInt

from vitarium.measures.base import Config, Predictions, measure


class CalibrationError(Config):
    """Of images in bins by their largest probability."""

    bins: PositiveInt = 15
    """Number of bins of equal width in confidence."""
    norm: Literal["l1", "max"] = "l1"
    """How bins are combined: by the mean over images, the expected calibration error (l1), or by
    the worst bin (max)."""


@measure(
    "calibration_error", unit="fraction", studies=True, paper="Guo et al. 2017, arXiv 1706.04599"
)
def calibration_error(config: CalibrationError, predictions: Predictions) -> float:
    """Expected calibration error: mean |accuracy - confidence| over bins of confidence, in [0, 1].

    Bins hold their lower edge, the last one its upper edge, too; in Guo et al. (eq. 3 and 5), each
    holds its upper one.
    """
    confidence = predictions.log_probabilities.exp().amax(1)
    # Certainty belongs to the last bin: torchmetrics gives a probability of 1 a bin of its own.
    bins = (confidence * config.bins).long().clamp(max=config.bins - 1)
    right = torch.bincount(bins, predictions.correct.double(), config.bins)
    believed = torch.bincount(bins, confidence, config.bins)
    off = (right - believed).abs()
    if config.norm == "l1":
        return float(off.sum() / len(predictions))
    count = torch.bincount(bins, minlength=config.bins)
    return float((off / count.clamp(min=1)).max())
