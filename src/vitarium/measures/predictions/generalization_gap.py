"""Generalization gap: training minus test accuracy."""

from collections.abc import Mapping

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions._share import share
from vitarium.measures.predictions.loss import loss


@measure(
    "generalization_gap",
    splits=("train", "test"),
    unit="fraction",
    part_units={"loss": "nats"},
    studies=True,
)
def generalization_gap(config: NoConfig, predictions: Mapping[str, Predictions]) -> Values:
    """Generalization gap: train minus test accuracy; "loss": test minus train cross-entropy.

    Training images are scored as they are, not augmented.
    """
    train, test = predictions["train"], predictions["test"]
    return {
        "": share(train.correct) - share(test.correct),
        "loss": loss(config, test) - loss(config, train),
    }
