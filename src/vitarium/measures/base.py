"""The contract of measures; all that a measure needs is imported from here."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, TypeVar, get_type_hints

from torch import Tensor

from vitarium.core.config import Config, NoConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import contract, register
from vitarium.data.loader import SplitName
from vitarium.evaluation.inputs import (
    EvalModel,
    Matrices,
    Predictions,
    Representation,
    Values,
    Weights,
    check_predictions,
)

__all__ = ["Config", "EvalModel", "Matrices", "NoConfig", "NotApplicable", "Predictions"]
__all__ += ["Representation", "Values", "Weights", "measure"]

RUNNER_OPTIONS: tuple[str, ...] = ("zoo", "measures", "models", "where", "epochs", "pairs", "split")
RUNNER_OPTIONS += ("data", "normalization", "device", "data_dir", "overwrite", "force", "progress")
"""Of `vitarium.measure`, but for `num_images`: no setting of a measure is called like one."""
AsDistance = Literal["identity", "one_minus", "square"]
F = TypeVar("F", bound=Callable[..., Any])

_KINDS: Mapping[tuple[Any, ...], tuple[str, str]] = {
    (Weights,): ("model", "weights"),
    (Predictions,): ("model", "predictions"),
    (Mapping[str, Predictions],): ("model", "predictions"),
    (EvalModel,): ("model", "model"),
    (Predictions, Predictions): ("pair", "predictions"),
    (EvalModel, EvalModel): ("pair", "model"),
    (Sequence[Weights],): ("pair", "weights"),
    (Tensor,): ("pair", "features"),
}
"""Of what a measure is, and what it needs, by the types of its parameters after the settings."""


@contract
def measure(
    name: str,
    *,
    unit: str,
    part_units: Mapping[str, str] = {},
    title: str = "",
    paper: str = "",
    symmetric: bool | Literal["mirrored"] = True,
    as_distance: AsDistance | None = None,
    quick: bool = True,
    held_out: bool | None = None,
    splits: tuple[SplitName, ...] = (),
    reason: Callable[[Any, Weights, Weights], str | None] | None = None,
    studies: bool = False,
    heat_map: bool = False,
    tiny: Mapping[str, Any] = {},
) -> Callable[[F], F]:
    """Register a function as the measure called `name`.

    The types of its parameters say of what it is, and what it is called with; the first one is that
    of its settings, `NoConfig` or a `Config` (the others are in `evaluation/inputs.py`):

        of      needs          function
        model   weights        f(config: C, weights: Weights) -> Values
        model   predictions    f(config: C, predictions: Predictions) -> Values
        model   model          f(config: C, subject: EvalModel) -> Values
        pair    predictions    f(config: C, first: Predictions, second: Predictions) -> Values
        pair    model          f(config: C, first: EvalModel, second: EvalModel) -> Values
        pair    weights        f(config: C, models: Sequence[Weights]) -> Matrices, of all pairs
        pair    features       f(config: C, features: Tensor) -> Tensor: of a batch [n, d] the
                               vector [k]; the measure of two layers is the cosine of their vectors,
                               see `Representation`, the base of its settings

    `Values` is a number, or numbers by part: "" is the whole model; another part is a tensor
    ("blocks.0.attn.qkv.weight"), a layer ("blocks.0"), a class, a severity, ... The first line of
    the docstring, at most 100 characters, is what `vitarium plugins measures` shows.

    A measure is deterministic: the same model, images and settings give the same bits. Random
    numbers are derived from a seed among its settings. Where it has no value it raises
    NotApplicable that says why; that model or pair is reported, and the others are still measured.
    A value that is not finite is reported in the same way. Predictions have been checked: logits
    are finite, and those of a pair of the same images and classes. It leaves models as they were. A
    setting `num_images` limits the number of images, `batch_size` says how many run at a time.

    Args:
        unit: of its values: "nats", "norm", ...; "fraction" is shown in percent.
        part_units: of parts that have another: {"error": "fraction"} is that of "error",
            "error/0.50" and "midpoint/error", by the part's first or last component.
        title: what tables and figures call it; "": its name, with spaces.
        paper: authors, year, and where it is, e.g. "Guo et al. 2017, arXiv 1706.04599".
        symmetric: of a pair: whether the values are the same in both orders; else both are taken;
            "mirrored": the same, along a path from its other end.
        as_distance: of a pair: how a value becomes a squared Euclidean distance, up to a constant:
            it is one ("identity"), 1 - value is ("one_minus"), or its square is ("square"). None:
            there is no such distance.
        quick: whether it takes no more than a forward pass; else it is measured only by name.
        held_out: whether images trained on are refused, unless forced; None: of predictions.
        splits: those that it compares: `Mapping[str, Predictions]`, in place of one split's.
        reason: of pairs of weights: `reason(config, first, second)` says why there is a NaN.
        studies: whether studies of populations show it, next to the others of their kind.
        heat_map: of a pair: whether studies draw it as a matrix, too.
        tiny: settings with which it takes a second at most, for `vitarium.testing.check_measure`.

    Raises TypeError, at import, for a fact that is misspelled, missing, or that contradicts others.
    """
    facts = dict(locals())  # its arguments
    if not unit:
        raise TypeError(f"measure '{name}': give it a unit")

    def decorate(function: F) -> F:
        hints = {key: hint for key, hint in get_type_hints(function).items() if key != "return"}
        _, *inputs = hints.values() or (None,)
        if tuple(inputs) not in _KINDS:
            raise TypeError(f"measure '{name}': parameters {hints} are those of no kind of measure")
        of, needs = _KINDS[tuple(inputs)]
        if of == "model" and not (symmetric is True and as_distance is None and not heat_map):
            pairs_only = "symmetric, as_distance and heat_map are facts of pairs"
            raise TypeError(f"measure '{name}': {pairs_only}")
        if (reason is not None) != ((of, needs) == ("pair", "weights")):
            only = "of pairs of weights, and of no others, give a reason"
            raise TypeError(f"measure '{name}': {only}")
        if bool(splits) != (inputs == [Mapping[str, Predictions]]):
            raise TypeError(f"measure '{name}': splits need predictions by split, and they splits")
        facts.update(of=of, needs=needs, title=title or name.replace("_", " "))
        facts["held_out"] = needs == "predictions" if held_out is None else held_out
        called: Callable[..., Any] = _checked(function) if needs == "predictions" else function
        register("measure", reserved=RUNNER_OPTIONS, **facts)(called)
        return function

    return decorate


def unit_of(facts: Mapping[str, Any], part: str) -> str:
    """The unit of a part of a measure with these facts; "" is the whole model's value."""
    first, *_, last = *part.split("/"), part.rpartition("/")[2]
    units: Mapping[str, str] = facts["part_units"]
    return units.get(last) or units.get(first) or str(facts["unit"])


def units_text(facts: Mapping[str, Any]) -> str:
    """The units of a measure in a line: `nats; error: fraction`."""
    return "; ".join([facts["unit"], *(f"{k}: {unit}" for k, unit in facts["part_units"].items())])


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls it only with predictions that can be measured and compared."""

    @wraps(function)
    def called(config: Any, *inputs: Any) -> Any:
        by_split = isinstance(inputs[0], Mapping)
        for predictions in [(p,) for p in inputs[0].values()] if by_split else [inputs]:
            check_predictions(*predictions)
        return function(config, *inputs)

    return called
