"""Mean entropy of the predicted distribution."""

from vitarium.measures.base import NoConfig, Predictions, measure


@measure("entropy", unit="nats")
def entropy(config: NoConfig, predictions: Predictions) -> float:
    """Mean entropy of the class probabilities, in nats: from 0 to log(number of classes)."""
    log_p = predictions.log_probabilities
    return -float((log_p.exp() * log_p).sum(1).mean())
