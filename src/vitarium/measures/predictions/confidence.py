"""Confidence: mean maximum softmax probability."""

from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Predictions, Values
from vitarium.measures.base import measure
from vitarium.measures.predictions._comparable import check


@measure("confidence", unit="fraction", title="confidence")
def confidence(config: NoConfig, predictions: Predictions) -> Values:
    """Mean of the largest probability; of all images, and of the correct and wrong ones.

    A part that no image belongs to is left out: a model that is always right has no "wrong".
    """
    check(predictions)
    largest = predictions.log_probabilities.exp().amax(1)
    parts = {"correct": largest[predictions.correct], "wrong": largest[~predictions.correct]}
    parts = {"": largest} | {
        part: probabilities for part, probabilities in parts.items() if len(probabilities)
    }
    return {part: float(probabilities.mean()) for part, probabilities in parts.items()}
