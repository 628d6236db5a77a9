"""What two classifiers know together."""

from vitarium.config import NoConfig
from vitarium.measures.comparable import check_pair, share
from vitarium.measures.subjects import Predictions
from vitarium.registry import measure


@measure("oracle_accuracy", of="pair", needs="predictions", unit="fraction")
def oracle_accuracy(config: NoConfig, one: Predictions, other: Predictions) -> float:
    """Share of images that at least one of two models gets right: what a perfect choice reaches."""
    check_pair(one, other)
    return share(one.correct | other.correct)
