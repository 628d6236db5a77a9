"""Checks of predictions: finite logits; for a pair, the same images and classes."""

import torch

from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Predictions, finite


def check(predictions: Predictions) -> None:
    """Raises NotApplicable where there are no images, or where logits are NaN or infinite."""
    if not len(predictions):
        raise NotApplicable("there are no images to predict")
    finite("what it predicts", predictions.logits)


def check_pair(first: Predictions, second: Predictions) -> None:
    """Raises NotApplicable where they are not of the same images in the same classes."""
    for predictions in (first, second):
        check(predictions)
    if len(first) != len(second):
        raise NotApplicable(f"one predicts {len(first)} images, the other {len(second)}")
    classes = first.logits.shape[1], second.logits.shape[1]
    if classes[0] != classes[1]:
        raise NotApplicable(f"one knows {classes[0]} classes, the other {classes[1]}")
    differing = int((first.labels != second.labels).sum())
    if differing:
        raise NotApplicable(
            f"{differing} of {len(first)} images have another label for the other model: these are "
            "not the same images"
        )
    if first.class_names and second.class_names and first.class_names != second.class_names:
        raise NotApplicable(
            f"one's {len(first.class_names)} classes are called otherwise than the other's "
            f"{len(second.class_names)}: they were trained on different data"
        )


def share(which: torch.Tensor) -> float:
    """Mean of a bool tensor, in [0, 1]."""
    return float(which.double().mean())
