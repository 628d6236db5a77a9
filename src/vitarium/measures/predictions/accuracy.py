"""Top-1 and top-5 accuracy."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions._share import share


@measure("accuracy", unit="fraction", studies=True)
def accuracy(config: NoConfig, predictions: Predictions) -> Values:
    """Accuracy: share of images whose class is predicted; top5: is among the five most probable.

    Of equally probable classes the first counts as more probable. "top5" needs six classes.
    """
    values = {"": share(predictions.correct)}
    logits, labels = predictions.logits, predictions.labels[:, None]
    if logits.shape[1] > 5:
        label_logits = logits.gather(1, labels)
        before = (logits == label_logits).cumsum(1).gather(1, labels)[:, 0] - 1
        values["top5"] = share((logits > label_logits).sum(1) + before < 5)
    return values
