"""Mean average precision: how well scores rank the images that have a label."""

import numpy as np
from sklearn.metrics import average_precision_score
from torch import Tensor

from vitarium.core.errors import InvalidData


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over labels of the average precision, in [0, 1], as scikit-learn computes it.

    scores [n, classes], labels bool [n, classes]; a label that no image has does not count. Raises
    InvalidData where no image has any.
    """
    values, hot = scores.double().cpu().numpy(), labels.cpu().numpy()
    present = np.flatnonzero(hot.any(axis=0))
    if not len(present):
        raise InvalidData("none of the images that are scored has a label")
    return float(np.mean([average_precision_score(hot[:, c], values[:, c]) for c in present]))
