"""The contract of measures: how one is registered, called, and what is known of it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from vitarium.core.config import Config, NoConfig
from vitarium.core.registry import register
from vitarium.data.loader import SplitName
from vitarium.evaluation.inputs import Weights

Of = Literal["model", "pair"]
Needs = Literal["weights", "predictions", "model", "features"]
AsDistance = Literal["identity", "one_minus", "square"]
F = TypeVar("F", bound=Callable[..., Any])

_SIGNATURES = {
    ("model", "weights"),
    ("model", "predictions"),
    ("model", "model"),
    ("pair", "weights"),
    ("pair", "predictions"),
    ("pair", "model"),
    ("pair", "features"),
}


def measure(
    name: str,
    *,
    of: Of,
    needs: Needs,
    unit: str,
    title: str,
    config: type[Config] = NoConfig,
    paper: str = "",
    symmetric: bool = True,
    as_distance: AsDistance | None = None,
    quick: bool = True,
    held_out: bool | None = None,
    splits: tuple[SplitName, ...] = (),
    reason: Callable[[Any, Weights, Weights], str | None] | None = None,
    studies: bool = False,
    heat_map: bool = False,
    tiny: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[F], F]:
    """Register a function as the measure called `name`.

    Its signature depends on `of` and `needs` (the types are in `evaluation/inputs.py`):

        of      needs          called as
        model   weights        f(config, weights: Weights) -> Values
        model   predictions    f(config, predictions: Predictions) -> Values
        model   model          f(config, subject: EvalModel) -> Values
        pair    predictions    f(config, first: Predictions, second: Predictions) -> Values
        pair    model          f(config, first: EvalModel, second: EvalModel) -> Values
        pair    weights        f(config, models: Sequence[Weights]) -> Matrices, all pairs at once
        pair    features       f(config, features: Tensor [n, d]) -> Tensor [k], the vector of a
                               batch: the measure of two layers is the cosine of their vectors, see
                               `Representation`, the base of its settings

    `Values` is a number, or numbers by part: "" is the whole model; another part is a tensor
    ("blocks.0.attn.qkv.weight"), a layer ("blocks.0"), a class, a severity, ... The first line of
    the docstring, at most 100 characters, is what `vitarium plugins measures` shows.

    A measure is deterministic: the same model, images and settings give the same bits. Random
    numbers are derived from a seed among its settings. Where it has no value it raises
    NotApplicable that says why; that model or pair is reported, and the others are still measured.
    A value that is not finite is reported in the same way. It leaves models as they were.

    Args:
        of: whether it measures a model or a pair of models.
        needs: what it is called with.
        unit: of its values: "nats", "pixels", "norm", ...; "fraction" is shown in percent.
        title: what tables and figures call it, e.g. "calibration error".
        config: its settings, the first argument. A setting `images` limits the number of images,
            `batch_size` says how many run at a time.
        paper: authors, year, and where it is, e.g. "Guo et al. 2017, arXiv 1706.04599".
        symmetric: of a pair: whether the value is the same in both orders; else both are measured.
        as_distance: of a pair: how a value becomes a squared Euclidean distance, up to a constant:
            it is one ("identity"), 1 - value is ("one_minus"), or its square is ("square"). None:
            there is no such distance.
        quick: whether it takes no more than a forward pass; else it is measured only by name.
        held_out: whether images that a model was trained on are refused, unless forced. None: if
            it needs predictions.
        splits: those that it compares; it is then called with predictions by split,
            `{"train": Predictions, "test": Predictions}`, in place of those of one split.
        reason: of pairs of weights: `reason(config, first, second)` says why there is no value
            where the matrices have NaN.
        studies: whether studies of populations show it, next to the others of their kind.
        heat_map: of a pair: whether studies draw it as a matrix of all models, too.
        tiny: settings with which it takes a second at most, for `vitarium.testing.check_measure`.

    Raises TypeError, at import, for a fact that is misspelled, missing, or that contradicts others.
    """
    if (of, needs) not in _SIGNATURES:
        raise TypeError(f"measure '{name}': of={of!r} with needs={needs!r} is no kind of measure")
    if not unit or not title:
        raise TypeError(f"measure '{name}': give it a unit and a title")
    if of == "model" and not (symmetric and as_distance is None and not heat_map):
        raise TypeError(f"measure '{name}': symmetric, as_distance and heat_map are facts of pairs")
    if (reason is not None) != ((of, needs) == ("pair", "weights")):
        raise TypeError(f"measure '{name}': of pairs of weights, and of no others, give a reason")
    if splits and needs != "predictions":
        raise TypeError(f"measure '{name}': splits need predictions")
    facts = {
        "of": of,
        "needs": needs,
        "unit": unit,
        "title": title,
        "paper": paper,
        "symmetric": symmetric,
        "as_distance": as_distance,
        "quick": quick,
        "held_out": needs == "predictions" if held_out is None else held_out,
        "splits": splits,
        "reason": reason,
        "studies": studies,
        "heat_map": heat_map,
        "tiny": tiny,
    }
    return register("measure", name, config, facts)
