"""What predictions have to be for a number of theirs to mean something; and two of one pair."""

import torch

from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Predictions, finite


def check(predictions: Predictions) -> None:
    """Raises NotApplicable where there are no images, or where logits are NaN or infinite."""
    if not len(predictions):
        raise NotApplicable("there are no images to predict")
    finite("what it predicts", predictions.logits)


def check_pair(one: Predictions, other: Predictions) -> None:
    """Raises NotApplicable where they are not of the same images in the same classes."""
    for predictions in (one, other):
        check(predictions)
    if len(one) != len(other):
        raise NotApplicable(f"one predicts {len(one)} images, the other {len(other)}")
    classes = one.logits.shape[1], other.logits.shape[1]
    if classes[0] != classes[1]:
        raise NotApplicable(f"one knows {classes[0]} classes, the other {classes[1]}")
    differing = int((one.labels != other.labels).sum())
    if differing:
        raise NotApplicable(
            f"{differing} of {len(one)} images have another label for the other model: these are "
            "not the same images"
        )
    if one.class_names and other.class_names and one.class_names != other.class_names:
        raise NotApplicable(
            f"one's {len(one.class_names)} classes are called otherwise than the other's "
            f"{len(other.class_names)}: they were trained on different data"
        )


def share(which: torch.Tensor) -> float:
    """Mean of a bool tensor, in [0, 1]."""
    return float(which.double().mean())
