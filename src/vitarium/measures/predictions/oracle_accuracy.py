"""Oracle accuracy: share of images that at least one of two models classifies correctly."""

from vitarium.measures.base import NoConfig, Predictions, measure
from vitarium.measures.predictions._share import share


@measure("oracle_accuracy", unit="fraction")
def oracle_accuracy(config: NoConfig, first: Predictions, second: Predictions) -> float:
    """Oracle accuracy: share of images that at least one of two models predicts correctly."""
    return share(first.correct | second.correct)
