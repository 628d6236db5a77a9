"""Error consistency: Cohen's kappa of two classifiers' correctness."""

from vitarium.measures.base import NoConfig, NotApplicable, Predictions, Values, measure
from vitarium.measures.predictions._share import share


@measure(
    "error_consistency", unit="kappa", studies=True, paper="Geirhos et al. 2020, arXiv 2006.16736"
)
def error_consistency(config: NoConfig, first: Predictions, second: Predictions) -> Values:
    """Error consistency: Cohen's kappa of two models' errors; 1: the same errors, 0: as by chance.

    "observed": share of images that both get right or both get wrong; "expected": the same of
    independent models as accurate; kappa = (observed - expected) / (1 - expected) (eq. 1-3).
    Raises NotApplicable where both are always right or both always wrong: chance explains all.
    """
    observed = share(first.correct == second.correct)
    right, other_right = share(first.correct), share(second.correct)
    expected = right * other_right + (1 - right) * (1 - other_right)
    if expected == 1:
        what = f"{'right' if right else 'wrong'} on all {len(first)} images"
        raise NotApplicable(f"both models are {what}: chance alone would agree as much")
    kappa = (observed - expected) / (1 - expected)
    return {"": kappa, "observed": observed, "expected": expected}
