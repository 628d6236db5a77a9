"""The findings about a stage in sentences, each with its number and its confidence interval."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitarium.studies.report.text import (
    Unit,
    counted,
    listed,
    number,
    p_value,
    title,
    unit_of,
    with_interval,
)
from vitarium.studies.statistics.analysis import (
    MIN_MODELS,
    Analysis,
    Effect,
    nearest_of_same_label,
    squared_of,
)
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.measures import is_distance

SPACES = {"agreement": "predictions", "cka": "representations", "weight_l2": "weights"}
"""Spaces in which models can form groups, by the measure of similarity."""
_MEANS = {"agreement": "mean agreement", "cka": "mean CKA", "weight_l2": "mean L2 distance"}
_MIN_PARENTS = 4
"""Of each kind; from then on whole families are drawn for intervals about ancestry."""


@dataclass(frozen=True)
class StageSentences:
    """`**` stands around what matters."""

    headlines: Sequence[str]
    details: Sequence[str]


def sentences(analysis: Analysis, bootstrap: Bootstrap) -> StageSentences:
    """The few that matter most, and the details."""
    accuracy = list(_accuracy(analysis, bootstrap))
    if len(analysis.stage) < MIN_MODELS:
        return StageSentences(accuracy, [])
    ancestry = list(_ancestry(analysis, bootstrap))
    return StageSentences(
        [*accuracy, *_groups(analysis), *ancestry],
        [
            *_similarity(analysis, bootstrap),
            *(_neighbors(analysis, bootstrap) if ancestry else ()),
            *_correlations(analysis, bootstrap),
        ],
    )


def _accuracy(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    stage = analysis.stage
    values = stage.models["accuracy"].dropna().to_numpy()
    if not len(values):
        yield f"No accuracy is known of the {counted(len(stage), 'model')}."
        return
    low, high = (number(value, "fraction") for value in (values.min(), values.max()))
    if len(values) == 1:
        yield f"The only model reaches a {stage.score} of **{low}**."
        return
    mean = with_interval(bootstrap.mean(values), "fraction", level=bootstrap.confidence_level)
    span = f"from **{low}** to **{high}**"
    yield f"{len(values)} models reach a mean {stage.score} of {mean}, {span}."
    clear = [effect for effect in analysis.of("accuracy") if effect.is_clear]
    if clear:
        parts = [f"{effect.factor.name} explains η² = {_eta(effect)}" for effect in clear[:3]]
        yield f"Of the differences in accuracy, {listed(parts)}."
    elif best := analysis.likeliest("accuracy"):
        yield (
            "No factor explains clearly more of the differences in accuracy than chance: the "
            f"likeliest is {best.factor.name} with {_beside_chance(best)}."
        )


def _eta(effect: Effect) -> str:
    """`**31 %**, 95 % CI 0 to 59, p = 0.035`"""
    eta = effect.explained.eta_squared
    text = with_interval(eta, "share", inside=eta.low is not None)
    return f"{text}, {p_value(effect.p)}"


def _beside_chance(effect: Effect) -> str:
    return f"η² = {_eta(effect)}, where chance alone gives {number(effect.by_chance, 'share')}"


def _similarity(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """How alike two models are on average."""
    pairs = analysis.stage.pairs

    def mean(measure: str) -> Estimate:
        return bootstrap.pairs(pairs[measure], np.ones((len(analysis.stage),) * 2, dtype=bool))

    def text(measure: str) -> str:
        return with_interval(mean(measure), unit_of(measure), level=bootstrap.confidence_level)

    if "agreement" in pairs and mean("agreement").value == 1:
        count = int(np.isfinite(pairs["agreement"]).sum()) // 2
        yield (
            "There is no variety in predictions: two models agree on **100 %** of the "
            f"{counted(count, 'pair')}' images."
        )
    elif "agreement" in pairs:
        kappa = "error_consistency"
        consistency = (
            f", with an error consistency (κ) of {with_interval(mean(kappa))}"
            if kappa in pairs
            else ""
        )
        yield (
            f"Two models give the same class to {text('agreement')} of the images on average"
            f"{consistency}."
        )
    if "cka" in pairs:
        yield f"The mean CKA of their last blocks is {text('cka')}."


def _groups(analysis: Analysis) -> Iterator[str]:
    """Which factors divide the models into groups, in each space."""
    clear, unclear = [], {}
    for measure, space in SPACES.items():
        effects = analysis.of(measure)
        parts = [f"{e.factor.name} (η² = {_eta(e)})" for e in effects if e.is_clear][:3]
        if parts:
            clear.append(f"in **{space}** by {listed(parts)}")
        elif effects:
            unclear[measure] = f"**{space}**"
    if clear:
        yield f"Modes are separated {'; '.join(clear)}."
    if best := analysis.likeliest(*unclear):
        yield (
            f"No factor clearly separates modes in {listed(list(unclear.values()))}: the likeliest "
            f"is {best.factor.name} in {SPACES[best.measure]} with {_beside_chance(best)}."
        )


def _ancestry(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """How distinct ancestors of different kinds leave their children."""
    stage, ancestry = analysis.stage, analysis.ancestry
    if ancestry is None or len(analysis.kin) < 2:
        return
    near, far = analysis.kin[-2], analysis.kin[-1]
    counts = _parents_by_kind(analysis)
    enough = min(counts.values()) >= _MIN_PARENTS
    families = [parent or "" for parent in stage.parents] if enough else None
    clear: list[str] = []
    unclear: list[str] = []
    for measure, space in SPACES.items():
        if measure not in stage.pairs:
            continue
        matrix, unit = stage.pairs[measure], unit_of(measure)
        difference = bootstrap.contrast(matrix, far.mask, near.mask, families)
        if not np.isfinite(difference.value):
            continue
        distinct = difference.is_positive if is_distance(measure) else difference.is_negative
        means = [number(bootstrap.pairs(matrix, kin.mask).value, unit) for kin in (far, near)]
        gain: Unit = "gain" if unit == "fraction" else unit
        gap = with_interval(difference, gain, level=bootstrap.confidence_level, inside=True)
        part = f"in **{space}** ({_MEANS[measure]} {means[0]} against {means[1]}: {gap})"
        (clear if distinct else unclear).append(part)
    if not clear and not unclear:
        return
    parts = [f"distinct {listed(clear)}"] if clear else []
    if unclear:
        parts.append(f"not clearly {'' if clear else 'distinct '}{listed(unclear)}")
    yield (
        f"Models of {listed(ancestry.values)} ancestry ({ancestry.name}) are {', '.join(parts)}, "
        f"each against models {near.name}."
    )
    if not enough:
        parents = listed([f"{count} {kind}" for kind, count in counts.items()])
        yield (
            f"With only {parents} parents, the intervals are over their children, and say nothing "
            "of other parents."
        )


def _parents_by_kind(analysis: Analysis) -> dict[str, int]:
    """How many parents there are of each kind."""
    assert analysis.ancestry is not None
    kinds = zip(analysis.ancestry.labels, analysis.stage.parents, strict=True)
    return dict(sorted(Counter(kind for kind, parent in set(kinds) if parent).items()))


def _neighbors(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """Whether a model's nearest cousin is of its kind."""
    ancestry, parts, chance = analysis.ancestry, [], 0.0
    assert ancestry is not None
    for measure, space in SPACES.items():
        distances = squared_of(analysis.stage, measure)
        if distances is None:
            continue
        squared, indices = distances
        labels = [ancestry.labels.iloc[index] for index in indices]
        parents = [analysis.stage.parents[index] or "" for index in indices]
        if nearest := nearest_of_same_label(squared, labels, parents, bootstrap):
            hits, chance = nearest
            parts.append(
                f"in {space} for {with_interval(hits, 'share', level=bootstrap.confidence_level)}"
            )
    if parts:
        factor = ancestry.name.removeprefix(f"{PARENT}'s ")
        yield (
            f"Of the models of other parents, the nearest is of a parent of the same {factor} "
            f"{listed(parts)} of the models; by chance for {number(chance, 'share')}."
        )


def _correlations(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """How other measures go with the accuracy."""
    values = analysis.stage.values
    for measure in ("generalization_gap", "hessian_trace", "distance_from_parent"):
        if measure not in values or "accuracy" not in values:
            continue
        finite = values[[measure, "accuracy"]].dropna()
        if len(finite) < MIN_MODELS:
            continue
        rho = bootstrap.correlation(finite[measure].to_numpy(), finite["accuracy"].to_numpy())
        if np.isfinite(rho.value):
            direction = (
                "rises with"
                if rho.is_positive
                else "falls with"
                if rho.is_negative
                else "neither clearly rises nor falls with"
            )
            yield (
                f"Accuracy {direction} the {title(measure)}: Spearman's \u03c1 = "
                f"{with_interval(rho, level=bootstrap.confidence_level)} over {len(finite)} models."
            )
