"""Spread of class accuracies: how unevenly a classifier treats the classes."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions.class_accuracy import accuracies


@measure("class_accuracy_spread", unit="fraction", title="spread of class accuracies", studies=True)
def class_accuracy_spread(config: NoConfig, predictions: Predictions) -> Values:
    """Standard deviation of the accuracies of classes, each counted once, in [0, 1/2].

    With n classes that have images, sqrt(sum((accuracy - mean)^2) / n): 0 where all classes are
    recognized equally well, 1/2 where half of them always and the others never. Parts: "lowest"
    and "highest", the accuracies of the worst and of the best class. Raises NotApplicable where a
    logit is not finite.
    """
    shares = accuracies(predictions)
    shares = shares[~shares.isnan()]
    return {
        "": float(shares.std(correction=0)),
        "lowest": float(shares.min()),
        "highest": float(shares.max()),
    }
