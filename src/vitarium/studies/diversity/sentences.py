"""The findings about a stage in sentences, each with its number and its confidence interval."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vitarium.studies.report.text import (
    Unit,
    limits_of,
    listed,
    number,
    title,
    unit_of,
    with_interval,
)
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.analysis import (
    MIN_MODELS,
    Analysis,
    Effect,
    nearest_of_same_label,
    squared_of,
)
from vitarium.studies.statistics.bootstrap import FRACTION, Bootstrap
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.stages import heat_mapped, is_distance

_MIN_PARENTS = 4  # of each kind; from then on whole families are drawn for intervals about ancestry
texts = Texts("diversity", "sentences")


class StageSentences(NamedTuple):
    """The few that matter most, and the details; `**` stands around what matters."""

    headlines: list[str]
    details: list[str]


def sentences(analysis: Analysis, bootstrap: Bootstrap) -> StageSentences:
    """What a stage says, its numbers from the analysis."""
    accuracy = list(_accuracy(analysis, bootstrap))
    if len(analysis.stage) < MIN_MODELS:
        return StageSentences(accuracy, [])
    ancestry = list(_ancestry(analysis, bootstrap))
    details = list(_similarity(analysis, bootstrap))
    if ancestry:
        details += _neighbors(analysis, bootstrap)
    details += _correlations(analysis, bootstrap)
    return StageSentences([*accuracy, *_groups(analysis), *ancestry], details)


def _accuracy(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    stage = analysis.stage
    values = stage.models["accuracy"].dropna().to_numpy()
    if not len(values):
        yield texts("no_accuracy", models=len(stage))
        return
    low, high = values.min(), values.max()
    if len(values) == 1:
        yield texts("one_accuracy", score=stage.score, accuracy=low)
        return
    spread = {"mean": bootstrap.mean(values, FRACTION), "low": low, "high": high}
    yield texts("accuracies", models=len(values), score=stage.score, **spread)
    effects = [effect for effect in analysis.of("accuracy") if effect.is_clear][:3]
    if effects:
        parts = [f"{effect.factor.name} explains η² = {_eta(effect)}" for effect in effects]
        yield texts("explained", factors=parts)
    elif best := analysis.likeliest("accuracy"):
        yield texts("unexplained", factor=best.factor.name, effect=_beside_chance(best))


def _eta(effect: Effect) -> str:
    """`**31 %**, 95 % CI 0 to 59, p = 0.035`"""
    eta = effect.explained.eta_squared
    p = "p < 0.001" if effect.p < 1e-3 else f"p = {effect.p:.3f}"
    return f"{with_interval(eta, 'share', inside=eta.low is not None)}, {p}"


def _beside_chance(effect: Effect) -> str:
    return texts("effect", eta=_eta(effect), chance=effect.by_chance)


def _similarity(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    pairs = analysis.stage.pairs
    everyone = np.ones((len(analysis.stage),) * 2, dtype=bool)
    shown = ("agreement", "cka", "error_consistency")
    means = {
        name: bootstrap.pairs(pairs[name], everyone, limits_of(name))
        for name in shown
        if name in pairs
    }
    if "agreement" in means and means["agreement"].value == 1:
        yield texts("one_opinion", pairs=int(np.isfinite(pairs["agreement"]).sum()) // 2)
    elif "agreement" in means:
        kappa = means.get("error_consistency")
        consistency = texts("consistency", kappa=kappa) if kappa else ""
        yield texts("agreement", share=means["agreement"], consistency=consistency)
    if "cka" in means:
        yield texts("cka", cka=means["cka"])


def _spaces() -> dict[str, str]:
    """Spaces in which models can form groups, by the measure of similarity: "weights (L2)"."""
    return {measure: title(measure).partition(" (")[0] for measure in heat_mapped()}


def _groups(analysis: Analysis) -> Iterator[str]:
    """Which factors divide the models into groups, in each space."""
    divided, unclear = [], {}
    for measure, space in _spaces().items():
        effects = analysis.of(measure)
        parts = [f"{e.factor.name} (η² = {_eta(e)})" for e in effects if e.is_clear][:3]
        if parts:
            divided.append(f"in **{space}** by {listed(parts)}")
        elif effects:
            unclear[measure] = f"**{space}**"
    if divided:
        yield texts("modes", factors="; ".join(divided))
    if best := analysis.likeliest(*unclear):
        effect = {"factor": best.factor.name, "effect": _beside_chance(best)}
        spaces = {"spaces": list(unclear.values()), "space": _spaces()[best.measure]}
        yield texts("no_modes", **spaces, **effect)


def _ancestry(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """How distinct ancestors of different kinds leave their children."""
    stage, ancestry = analysis.stage, analysis.ancestry
    if ancestry is None or len(analysis.kin) < 2:
        return
    near, far = analysis.kin[-2], analysis.kin[-1]
    kinds = set(zip(ancestry.labels, stage.parents, strict=True))
    counts = dict(sorted(Counter(kind for kind, parent in kinds if parent).items()))
    enough = min(counts.values()) >= _MIN_PARENTS
    families = [parent or "" for parent in stage.parents] if enough else None
    parts: dict[bool, list[str]] = {True: [], False: []}
    for measure, space in _spaces().items():
        if measure not in stage.pairs:
            continue
        matrix, unit = stage.pairs[measure], unit_of(measure)
        difference = bootstrap.contrast(matrix, far.mask, near.mask, families)
        if not np.isfinite(difference.value):
            continue
        distinct = difference.is_positive if is_distance(measure) else difference.is_negative
        means = [number(bootstrap.pairs(matrix, kin.mask).value, unit) for kin in (far, near)]
        gain: Unit = "gain" if unit == "fraction" else unit
        gap = with_interval(difference, gain, inside=True)
        name = title(measure).removeprefix(f"{space} ").strip("()")
        numbers = f"mean {name} {means[0]} against {means[1]}: {gap}"
        parts[distinct].append(f"in **{space}** ({numbers})")
    if not any(parts.values()):
        return
    claims = [f"distinct {listed(parts[True])}"] if parts[True] else []
    if parts[False]:
        claims.append(f"not clearly {'' if claims else 'distinct '}{listed(parts[False])}")
    compared = {"factor": ancestry.name, "claims": ", ".join(claims), "kin": near.name}
    yield texts("ancestry", kinds=ancestry.values, **compared)
    if not enough:
        yield texts("few_parents", counts=[f"{count} {kind}" for kind, count in counts.items()])


def _neighbors(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    """Whether a model's nearest cousin is of its kind."""
    ancestry, parts, chance = analysis.ancestry, [], 0.0
    assert ancestry is not None
    for measure, space in _spaces().items():
        if distances := squared_of(analysis.stage, measure):
            squared, indices = distances
            labels = [ancestry.labels.iloc[index] for index in indices]
            parents = [analysis.stage.parents[index] or "" for index in indices]
            if nearest := nearest_of_same_label(squared, labels, parents, bootstrap):
                hits, chance = nearest
                parts.append(f"in {space} for {with_interval(hits, 'share')}")
    if parts:
        factor = ancestry.name.removeprefix(f"{PARENT}'s ")
        yield texts("neighbors", factor=factor, shares=parts, chance=chance)


def _correlations(analysis: Analysis, bootstrap: Bootstrap) -> Iterator[str]:
    for measure in ("generalization_gap", "hessian_trace", "distance_from_parent"):
        finite = analysis.stage.values.reindex(columns=[measure, "accuracy"]).dropna()
        if len(finite) < MIN_MODELS:
            continue
        rho = bootstrap.correlation(finite[measure].to_numpy(), finite["accuracy"].to_numpy())
        if np.isfinite(rho.value):
            direction = "rises with" if rho.is_positive else "neither clearly rises nor falls with"
            direction = "falls with" if rho.is_negative else direction
            about = {"direction": direction, "measure": title(measure)}
            yield texts("correlation", rho=rho, models=len(finite), **about)
