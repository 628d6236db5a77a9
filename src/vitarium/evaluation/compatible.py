"""Whether models compute the same function of equal weights; see `architectures/compare.py`."""

from vitarium.architectures.compare import (
    architecture_differences,
    described,
    module_differences,
)
from vitarium.evaluation.inputs import EvalModel, Weights


def mismatch(first: Weights, second: Weights, *, head: bool = True) -> str | None:
    """A sentence that names the factors in which two models differ that are in no tensor's shape.

    None where they differ in none, and where nothing is known of what builds one of them.
    """
    if first.origin is None or second.origin is None:
        return None
    differences = architecture_differences(first.origin, second.origin, head=head)
    return _sentence(first.name, second.name, differences)


def running_mismatch(first: EvalModel, second: EvalModel) -> str | None:
    """The same of models that run."""
    if first.origin is None or second.origin is None:
        differences = module_differences(first.model, second.model)
    else:
        differences = architecture_differences(first.origin, second.origin)
    return _sentence(first.name, second.name, differences)


def _sentence(first: str, second: str, differences: dict[str, tuple[object, object]]) -> str | None:
    if not differences:
        return None
    factors = described(differences)
    return f"{first} and {second} are of different architectures: they differ in {factors}"
