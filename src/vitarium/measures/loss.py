"""How surprised a classifier is by the right classes."""

from vitarium.config import NoConfig
from vitarium.measures.comparable import check
from vitarium.measures.subjects import Predictions
from vitarium.registry import measure


@measure("loss", of="model", needs="predictions", unit="nats")
def loss(config: NoConfig, predictions: Predictions) -> float:
    """Cross-entropy: mean of -log p of the right class, in nats, at least 0."""
    check(predictions)
    return -float(predictions.log_probabilities.gather(1, predictions.labels[:, None]).mean())
