"""Jensen-Shannon divergence of two classifiers' class probabilities."""

import math

import torch

from vitarium.measures.base import NoConfig, Predictions, measure


@measure(
    "js_divergence",
    unit="bits",
    title="probabilities (Jensen-Shannon)",
    as_distance="identity",
    studies=True,
    paper="Lin 1991",
)
def js_divergence(config: NoConfig, first: Predictions, second: Predictions) -> float:
    """Jensen-Shannon divergence of the class probabilities, mean over images, in bits: 0 to 1.

    The divergence itself, not its square root, which is the distance of that name.
    """
    log_p, log_q = first.log_probabilities, second.log_probabilities
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    divergence = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2
    # Rounding alone can leave the bounds of an image's divergence.
    return float((divergence / math.log(2)).clamp(0, 1).mean())
