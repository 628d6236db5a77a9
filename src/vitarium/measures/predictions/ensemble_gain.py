"""What two classifiers gain by answering together."""

from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Predictions, Values
from vitarium.measures.base import measure
from vitarium.measures.predictions._comparable import check_pair, share


@measure(
    "ensemble_gain",
    of="pair",
    needs="predictions",
    unit="fraction",
    title="ensemble gain",
    studies=True,
    paper="Lakshminarayanan et al. 2017, arXiv 1612.01474",
)
def ensemble_gain(config: NoConfig, one: Predictions, other: Predictions) -> Values:
    """Accuracy of the averaged probabilities minus the mean of both accuracies, in [-1, 1].

    "best": minus the better accuracy of the two.
    """
    check_pair(one, other)
    mean = one.log_probabilities.exp() + other.log_probabilities.exp()
    together = share(mean.argmax(1) == one.labels)
    accuracies = share(one.correct), share(other.correct)
    return {"": together - sum(accuracies) / 2, "best": together - max(accuracies)}
