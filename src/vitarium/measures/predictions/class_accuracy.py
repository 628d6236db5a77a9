"""Accuracy by class, and balanced accuracy."""

from collections import Counter

import torch
from torch import Tensor

from vitarium.measures.base import NoConfig, Predictions, Values, measure


@measure("class_accuracy", unit="fraction")
def class_accuracy(config: NoConfig, predictions: Predictions) -> Values:
    """Accuracy per class, and their mean (balanced accuracy).

    Share of each class's images that are right; "": the mean over classes.

    A class without images has no value. Classes without a name go by their number; a name that
    several classes have is followed by it, as in "crane (134)".
    """
    shares = accuracies(predictions)
    present = ~shares.isnan()
    parts = {"": float(shares[present].mean())}
    names = predictions.class_names or [str(number) for number in range(len(shares))]
    count = Counter(names)
    names = [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
    return parts | {names[number]: float(shares[number]) for number in present.nonzero()[:, 0]}


def accuracies(predictions: Predictions) -> Tensor:
    """Share of each class's images that are right, float64 [classes]; NaN of a class without."""
    classes = predictions.logits.shape[1]
    images = torch.bincount(predictions.labels, minlength=classes)
    right = torch.bincount(predictions.labels[predictions.correct], minlength=classes)
    return right.double() / images
