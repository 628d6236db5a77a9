"""How much a classifier leaves open."""

from vitarium.config import NoConfig
from vitarium.measures.comparable import check
from vitarium.measures.subjects import Predictions
from vitarium.registry import measure


@measure("entropy", of="model", needs="predictions", unit="nats")
def entropy(config: NoConfig, predictions: Predictions) -> float:
    """Mean entropy of the class probabilities, in nats: from 0 to log(number of classes)."""
    check(predictions)
    log_p = predictions.log_probabilities
    return -float((log_p.exp() * log_p).sum(1).mean())
