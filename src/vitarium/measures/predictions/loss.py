"""Cross-entropy on the labels, in nats."""

from vitarium.measures.base import NoConfig, Predictions, measure


@measure("loss", unit="nats", studies=True)
def loss(config: NoConfig, predictions: Predictions) -> float:
    """Cross-entropy loss: mean of -log p of the true class, in nats."""
    return -float(predictions.log_probabilities.gather(1, predictions.labels[:, None]).mean())
