"""Accuracy by class, and balanced accuracy."""

from collections import Counter
from collections.abc import Sequence

import torch

from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Predictions, Values
from vitarium.measures.base import measure
from vitarium.measures.predictions._comparable import check


@measure("class_accuracy", unit="fraction", title="class accuracy")
def class_accuracy(config: NoConfig, predictions: Predictions) -> Values:
    """Share of each class's images that are right, by class; "": their mean (balanced accuracy).

    A class without images has no value. Classes without a name go by their number; a name that
    several classes have is followed by it, as in "crane (134)".
    """
    check(predictions)
    classes = predictions.logits.shape[1]
    images = torch.bincount(predictions.labels, minlength=classes)
    right = torch.bincount(predictions.labels[predictions.correct], minlength=classes)
    present = images > 0
    shares = right.double() / images
    parts = {"": float(shares[present].mean())}
    names = _parts(predictions.class_names or [str(number) for number in range(classes)])
    return parts | {names[number]: float(shares[number]) for number in present.nonzero()[:, 0]}


def _parts(names: Sequence[str]) -> list[str]:
    """Names of which no two are the same."""
    count = Counter(names)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
