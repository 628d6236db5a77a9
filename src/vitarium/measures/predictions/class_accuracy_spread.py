"""Spread of class accuracies: how unevenly a classifier treats the classes."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions.class_accuracy import accuracies


@measure("class_accuracy_spread", unit="fraction", title="spread of class accuracies", studies=True)
def class_accuracy_spread(config: NoConfig, predictions: Predictions) -> Values:
    """Standard deviation of the accuracy over classes, in [0, 1/2].

    Of classes that have images: 0 where all are recognized equally well, 1/2 where half of them
    always and the others never. Parts: "lowest" and "highest", of the worst and the best class.
    """
    shares = accuracies(predictions)
    shares = shares[~shares.isnan()]
    lowest, highest = shares.aminmax()
    values = {"": shares.std(correction=0), "lowest": lowest, "highest": highest}
    return {part: float(value) for part, value in values.items()}
