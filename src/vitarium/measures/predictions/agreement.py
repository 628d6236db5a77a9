"""Whether two classifiers say the same."""

from vitarium.core.config import NoConfig
from vitarium.evaluation.inputs import Predictions, Values
from vitarium.measures.base import measure
from vitarium.measures.predictions._comparable import check_pair, share


@measure(
    "agreement",
    of="pair",
    needs="predictions",
    unit="fraction",
    title="predictions (agreement)",
    as_distance="one_minus",
    studies=True,
    heat_map=True,
)
def agreement(config: NoConfig, one: Predictions, other: Predictions) -> Values:
    """Share of images to which both give the same class; "errors": of those both get wrong.

    "errors" is left out where there is no image that both get wrong.
    """
    check_pair(one, other)
    same = one.classes == other.classes
    values = {"": share(same)}
    wrong = ~(one.correct | other.correct)
    if wrong.any():
        values["errors"] = share(same[wrong])
    return values
