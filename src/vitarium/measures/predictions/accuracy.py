"""Top-1 and top-5 accuracy."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions._share import share

_AMONG = 5


@measure("accuracy", unit="fraction", title="accuracy", studies=True)
def accuracy(config: NoConfig, predictions: Predictions) -> Values:
    """Share of images whose class is the most probable, and (top5) among the five most probable.

    Of equally probable classes the first counts as more probable. "top5" is of six classes at
    least. Raises NotApplicable where a logit is not finite.
    """
    values = {"": share(predictions.correct)}
    if predictions.logits.shape[1] > _AMONG:
        logits, labels = predictions.logits, predictions.labels[:, None]
        label_logits = logits.gather(1, labels)
        before = (logits == label_logits).cumsum(1).gather(1, labels)[:, 0] - 1
        values["top5"] = share((logits > label_logits).sum(1) + before < _AMONG)
    return values
