"""What two classifiers know together."""

from vitarium.core.config import NoConfig
from vitarium.core.registry import measure
from vitarium.evaluation.inputs import Predictions
from vitarium.measures.predictions._comparable import check_pair, share


@measure("oracle_accuracy", of="pair", needs="predictions", unit="fraction")
def oracle_accuracy(config: NoConfig, one: Predictions, other: Predictions) -> float:
    """Share of images that at least one of two models gets right: what a perfect choice reaches."""
    check_pair(one, other)
    return share(one.correct | other.correct)
