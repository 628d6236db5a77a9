"""Agreement: share of images with equal predicted class."""

from vitarium.measures.base import NoConfig, Predictions, Values, measure
from vitarium.measures.predictions._share import share


@measure(
    "agreement",
    unit="fraction",
    title="predictions (agreement)",
    as_distance="one_minus",
    studies=True,
    heat_map=True,
)
def agreement(config: NoConfig, first: Predictions, second: Predictions) -> Values:
    """Share of images with the same predicted class; "errors": among those that both get wrong."""
    same = first.classes == second.classes
    values = {"": share(same)}
    wrong = ~(first.correct | second.correct)
    if wrong.any():
        values["errors"] = share(same[wrong])
    return values
