"""Confidence: mean maximum softmax probability."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure


@measure("confidence", unit="fraction")
def confidence(config: NoConfig, predictions: Predictions) -> Values:
    """Mean confidence (largest class probability): of all images, of correct and of wrong ones.

    A part that no image belongs to is left out: a model that is always right has no "wrong".
    """
    largest = predictions.log_probabilities.exp().amax(1)
    parts = {"correct": largest[predictions.correct], "wrong": largest[~predictions.correct]}
    return {"": float(largest.mean())} | {p: float(x.mean()) for p, x in parts.items() if len(x)}
