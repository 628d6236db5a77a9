"""Ensemble gain: accuracy of averaged probabilities minus mean accuracy of the two models."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions._share import share


@measure(
    "ensemble_gain",
    unit="fraction",
    studies=True,
    paper="Lakshminarayanan et al. 2017, arXiv 1612.01474",
)
def ensemble_gain(config: NoConfig, first: Predictions, second: Predictions) -> Values:
    """Accuracy of two models' averaged probabilities minus their mean accuracy, in [-1, 1].

    "best": minus the better accuracy of the two.
    """
    mean = first.log_probabilities.exp() + second.log_probabilities.exp()
    ensemble = share(mean.argmax(1) == first.labels)
    accuracies = share(first.correct), share(second.correct)
    return {"": ensemble - sum(accuracies) / 2, "best": ensemble - max(accuracies)}
