"""What the numbers say, in sentences; each with its number and its confidence interval."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitarium.studies.report.text import (
    counted,
    listed,
    number,
    p_value,
    share,
    share_with_interval,
    title,
    with_interval,
)
from vitarium.studies.statistics.analysis import (
    FEWEST,
    Analysis,
    Finding,
    nearest_alike,
    squared_of,
)
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.factors import PARENT

MODES = {"agreement": "predictions", "cka": "representations", "weight_l2": "weights"}
"""Of what models can have modes, by the measure that tells."""
_COMPARED = {
    "agreement": ("predictions", "mean agreement"),
    "cka": ("representations", "mean CKA"),
    "weight_l2": ("weights", "mean L2 distance"),
}
_ENOUGH_PARENTS = 4
"""Of each kind; from then on whole families are drawn for intervals about ancestry."""


@dataclass(frozen=True)
class Said:
    """A stage's sentences; `**` stands around what matters."""

    headlines: Sequence[str]
    """The few that matter most."""
    details: Sequence[str]


def sentences(analysis: Analysis, bootstrap: Bootstrap) -> Said:
    """What there is to say of a stage."""
    accuracy = _accuracy(analysis, bootstrap)
    if len(analysis.stage) < FEWEST:
        return Said(accuracy, [])
    ancestry = _ancestry(analysis, bootstrap)
    return Said(
        [*accuracy, *_modes(analysis), *ancestry],
        [
            *_variety(analysis, bootstrap),
            *(_neighbours(analysis, bootstrap) if ancestry else []),
            *_relations(analysis, bootstrap),
        ],
    )


def _accuracy(analysis: Analysis, bootstrap: Bootstrap) -> list[str]:
    stage = analysis.stage
    values = stage.models["accuracy"].dropna().to_numpy()
    if not len(values):
        return [f"No accuracy is known of the {counted(len(stage), 'model')}."]
    if len(values) == 1:
        return [f"The only model reaches a {stage.score} of **{number(values[0], 'accuracy')}**."]
    low, high = (number(v, "accuracy") for v in (values.min(), values.max()))
    mean = with_interval(bootstrap.mean(values), "accuracy", level=bootstrap.level)
    return [
        f"{len(values)} models reach a mean {stage.score} of {mean}, from **{low}** to **{high}**.",
        *_explained(analysis),
    ]


def _explained(analysis: Analysis) -> list[str]:
    """Which factors account for the accuracy; or that none does, and what the likeliest has."""
    clear = [finding for finding in analysis.of("accuracy") if finding.is_clear]
    if clear:
        said = [f"{finding.factor.name} explains η² = {_share(finding)}" for finding in clear[:3]]
        return [f"Of the differences in accuracy, {listed(said)}."]
    if best := analysis.likeliest("accuracy"):
        return [
            "No factor explains clearly more of the differences in accuracy than chance: the "
            f"likeliest is {best.factor.name} with η² = {_share(best)}, where chance alone gives "
            f"{_chance(best)}."
        ]
    return []


def _share(finding: Finding) -> str:
    """`**31 %**, 95 % CI 0 to 59, p = 0.035`, without brackets."""
    eta = share_with_interval(finding.share.eta_squared).replace(" (", ", ").removesuffix(")")
    return f"{eta}, {p_value(finding.p)}"


def _chance(finding: Finding) -> str:
    return share((finding.share.groups - 1) / (finding.share.models - 1))


def _variety(analysis: Analysis, bootstrap: Bootstrap) -> list[str]:
    """How alike two models are on average."""
    pairs = analysis.stage.pairs
    said = []
    everyone = np.ones((len(analysis.stage),) * 2, dtype=bool)
    if "agreement" in pairs:
        agreement = bootstrap.pairs(pairs["agreement"], everyone)
        text = with_interval(agreement, "agreement", level=bootstrap.level)
        if agreement.value == 1:
            text = f"**100 %** of the {counted(_pairs(pairs['agreement']), 'pair')}' images"
            said.append(f"There is no variety in predictions: two models agree on {text}.")
        else:
            said.append(f"Two models give the same class to {text} of the images on average")
            if "error_consistency" in pairs:
                kappa = bootstrap.pairs(pairs["error_consistency"], everyone)
                said[-1] += f", with an error consistency (κ) of {with_interval(kappa)}"
            said[-1] += "."
    if "cka" in pairs:
        cka = with_interval(bootstrap.pairs(pairs["cka"], everyone), level=bootstrap.level)
        said.append(f"The mean CKA of their last blocks is {cka}.")
    return said


def _pairs(matrix: np.ndarray) -> int:
    return int(np.isfinite(matrix).sum()) // 2


def _modes(analysis: Analysis) -> list[str]:
    """Which factors make groups of models, in each space."""
    clear, unclear = [], {}
    for measure, what in MODES.items():
        found = analysis.of(measure)
        shares = [f"{f.factor.name} (η² = {_share(f)})" for f in found if f.is_clear][:3]
        if shares:
            clear.append(f"in **{what}** by {listed(shares)}")
        elif found:
            unclear[measure] = f"**{what}**"
    said = [f"Modes are separated {'; '.join(clear)}."] if clear else []
    if best := analysis.likeliest(*unclear):
        said.append(
            f"No factor clearly separates modes in {listed(list(unclear.values()))}: the likeliest "
            f"is {best.factor.name} in {MODES[best.measure]} with η² = {_share(best)}, where "
            f"chance alone gives {_chance(best)}."
        )
    return said


def _ancestry(analysis: Analysis, bootstrap: Bootstrap) -> list[str]:
    """How distinct ancestors of different kinds leave their children."""
    stage, ancestry = analysis.stage, analysis.ancestry
    if ancestry is None or len(analysis.kin) < 2:
        return []
    near, far = analysis.kin[-2], analysis.kin[-1]
    counts = _parents_of_kind(analysis)
    enough = min(counts.values()) >= _ENOUGH_PARENTS
    families = [parent or "" for parent in stage.parents] if enough else None
    clear: list[str] = []
    unclear: list[str] = []
    for measure, (what, mean) in _COMPARED.items():
        if measure not in stage.pairs:
            continue
        matrix = stage.pairs[measure]
        difference = bootstrap.contrast(matrix, far.chosen, near.chosen, families)
        if not np.isfinite(difference.value):
            continue
        distinct = difference.is_positive if measure == "weight_l2" else difference.is_negative
        apart, close = (bootstrap.pairs(matrix, kin.chosen).value for kin in (far, near))
        told = with_interval(difference, measure, level=bootstrap.level, points=True, inside=True)
        means = f"{number(apart, measure)} against {number(close, measure)}"
        (clear if distinct else unclear).append(f"in **{what}** ({mean} {means}: {told})")
    if not clear and not unclear:
        return []
    kinds = listed(ancestry.values)
    said = f"Models of {kinds} ancestry ({ancestry.name}) are "
    said += f"distinct {listed(clear)}" if clear else f"not clearly distinct {listed(unclear)}"
    if clear and unclear:
        said += f", not clearly {listed(unclear)}"
    said += f", each against models {near.name}."
    if enough:
        return [said]
    told = listed([f"{count} {kind}" for kind, count in counts.items()])
    warning = "the intervals are over their children, and say nothing of other parents"
    return [said, f"With only {told} parents, {warning}."]


def _neighbours(analysis: Analysis, bootstrap: Bootstrap) -> list[str]:
    """Whether a model's nearest cousin is of its kind."""
    ancestry, parts, chance = analysis.ancestry, [], 0.0
    assert ancestry is not None
    for measure, what in MODES.items():
        there = squared_of(analysis.stage, measure)
        if there is None:
            continue
        squared, places = there
        labels = [ancestry.labels.iloc[place] for place in places]
        parents = [analysis.stage.parents[place] or "" for place in places]
        if found := nearest_alike(squared, labels, parents, bootstrap):
            chance = found[1]
            parts.append(f"in {what} for {share_with_interval(found[0], level=bootstrap.level)}")
    if not parts:
        return []
    what = ancestry.name.removeprefix(f"{PARENT}'s ")
    return [
        f"Of the models of other parents, the nearest is of a parent of the same {what} "
        f"{listed(parts)} of the models; by chance for {share(chance)}."
    ]


def _parents_of_kind(analysis: Analysis) -> dict[str, int]:
    """How many parents there are of each kind."""
    assert analysis.ancestry is not None
    kinds = zip(analysis.ancestry.labels, analysis.stage.parents, strict=True)
    return dict(sorted(Counter(kind for kind, parent in set(kinds) if parent).items()))


def _relations(analysis: Analysis, bootstrap: Bootstrap) -> list[str]:
    """How other measures go with the accuracy."""
    values, said = analysis.stage.values, []
    for measure in ("generalization_gap", "hessian_trace", "distance_from_parent"):
        if measure not in values or "accuracy" not in values:
            continue
        there = values[[measure, "accuracy"]].dropna()
        if len(there) < 4:
            continue
        found = bootstrap.correlation(there[measure].to_numpy(), there["accuracy"].to_numpy())
        if not np.isfinite(found.value):
            continue
        way = "rises" if found.is_positive else "falls" if found.is_negative else "does not clearly"
        how = f"{way} with" if way != "does not clearly" else "neither clearly rises nor falls with"
        said.append(
            f"Accuracy {how} the {title(measure)}: Spearman's \u03c1 = "
            f"{with_interval(found, level=bootstrap.level)} over {len(there)} models."
        )
    return said
