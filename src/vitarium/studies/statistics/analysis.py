"""What factors explain of a stage's accuracies, predictions, representations and weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitarium.core.registry import get
from vitarium.studies.statistics import variance
from vitarium.studies.statistics.bootstrap import FRACTION, Bootstrap, Estimate, Numbers
from vitarium.studies.statistics.factors import PARENT, Factor, is_seed
from vitarium.studies.statistics.stages import ACCURACY, Stage

MIN_MODELS = 4  # models of which it is asked what explains their variety
SAME_PARENT = "of the same parent"
Mask = NDArray[np.bool_]  # pairs of models, [models, models]
Distances = tuple[Numbers, NDArray[np.int64]]
"""Squared distances [n, n] between models, and their indices [n] in the stage."""


class Effect(NamedTuple):
    """What one factor explains of one measure."""

    measure: str
    factor: Factor
    explained: variance.Explained
    num_factors: int  # that were tried for the measure

    @property
    def p(self) -> float:
        """Bonferroni's: as many times larger as there were factors."""
        return min(1.0, self.explained.p * self.num_factors)

    @property
    def by_chance(self) -> float:
        """Eta squared of a factor without any effect."""
        return (self.explained.groups - 1) / (self.explained.models - 1)

    @property
    def is_clear(self) -> bool:
        """More than chance, by the permutation test."""
        return self.p < 0.05


class Kin(NamedTuple):
    """Pairs of models that are equally close kin."""

    name: str
    mask: Mask

    @property
    def pairs(self) -> int:
        return int(self.mask.sum()) // 2


class Analysis(NamedTuple):
    """What explains the variety of a stage's models."""

    stage: Stage
    effects: Sequence[Effect]
    mixed_models: Mapping[str, variance.Mixed | str]
    """By measure: the mixed model, or why there is none. Empty for a stage without parents."""
    kin: Sequence[Kin]  # the closest first; empty for a stage of one parent or none
    ancestry: Factor | None  # the factor of parents that divides kin, e.g. the parent's objective

    def of(self, measure: str) -> list[Effect]:
        """Clear effects first, then those that explain most (of what chance does not)."""
        effects = [effect for effect in self.effects if effect.measure == measure]
        return sorted(effects, key=lambda e: (not e.is_clear, -e.explained.adjusted.value))

    def likeliest(self, *measures: str) -> Effect | None:
        """The effect on these measures that chance explains worst."""
        effects = [effect for measure in measures for effect in self.of(measure)]
        return min(effects, key=lambda e: (e.p, -e.explained.adjusted.value), default=None)

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(effect.measure for effect in self.effects))

    @property
    def main_factor(self) -> str | None:
        """The factor that explains most of the accuracy, or else of anything, if any does."""
        effects = (self.of(measure) for measure in (ACCURACY, *self.measures))
        return next((first.factor.name for first, *_ in filter(None, effects)), None)


def analyze(stage: Stage, bootstrap: Bootstrap) -> Analysis:
    effects = [
        effect
        for measure, squared, indices in _distances(stage)
        if len(indices) >= MIN_MODELS
        for effect in _effects(stage, measure, squared, indices, bootstrap)
    ]
    return Analysis(stage, effects, _mixed_models(stage), kinship(stage), _ancestry_of(stage))


def _ancestry_of(stage: Stage) -> Factor | None:
    """The first factor of parents that is no seed."""
    of_parents = (f for f in stage.groups if f.name.startswith(f"{PARENT}'s "))
    return next((f for f in of_parents if not is_seed(f.name)), None)


def kinship(stage: Stage) -> list[Kin]:
    """Pairs of one parent, of different parents of one kind, and of parents of different kinds."""
    parents = np.asarray([parent or "" for parent in stage.parents])
    if len(set(parents.tolist())) < 2:
        return []
    related = (parents != "")[:, None] & (parents != "") & ~np.eye(len(parents), dtype=bool)
    equal = parents[:, None] == parents
    same, unrelated = related & equal, related & ~equal
    kin = [Kin(SAME_PARENT, same), Kin("of different parents", unrelated)]
    if (ancestry := _ancestry_of(stage)) is not None:
        kinds = np.asarray(ancestry.labels.tolist())
        same_kind = kinds[:, None] == kinds
        factor = ancestry.name.removeprefix(f"{PARENT}'s ")
        kin[1:] = [
            Kin(f"of different parents, same {factor}", unrelated & same_kind),
            Kin(f"of parents of different {factor}", unrelated & ~same_kind),
        ]
    return [pairs for pairs in kin if pairs.pairs]


def pairs_sharing(factor: Factor) -> Mask:
    """Pairs of different models with the same value, [models, models]."""
    labels = np.asarray(factor.labels.tolist())
    equal: Mask = labels[:, None] == labels
    return equal & ~np.eye(len(labels), dtype=bool)


def nearest_of_same_label(
    squared: Numbers, labels: Sequence[str], parents: Sequence[str], bootstrap: Bootstrap
) -> tuple[Estimate, float] | None:
    """Share of models whose nearest model of another parent has the same label; and what chance
    would give; `squared` distances are [models, models]. Siblings are left out: a parent's
    children are alike whatever its kind.

    Of models for which another parent of the same label has children; None where there are none.
    """
    names, families = np.asarray(labels), np.asarray(parents)
    cousins = families[:, None] != families
    matching = (names[:, None] == names) & cousins
    with_match = np.flatnonzero(matching.any(1))
    if not len(with_match):
        return None
    nearest = np.where(cousins, squared, np.inf)[with_match].argmin(1)
    hits = (names[nearest] == names[with_match]).astype(np.float64)
    chance = (matching[with_match].sum(1) / cousins[with_match].sum(1)).mean()
    return bootstrap.mean(hits, FRACTION), float(chance)


def squared_of(stage: Stage, measure: str) -> Distances | None:
    """Squared distances [n, n] between the models that have all of them; their indices [n].

    Values become squared Euclidean distances up to a constant (of one-hot predictions, of square
    roots of probabilities (about), of normalized Gram matrices, of weights, of their directions):
    shares of variance do not depend on the constant.
    """
    values = stage.pairs.get(measure)
    rule = None if values is None else get("measure", measure).facts["as_distance"]
    if values is None or rule is None:
        return None
    squared = {"one_minus": 1 - values, "square": values**2, "identity": values}[rule]
    squared = np.clip(squared, 0, None)
    np.fill_diagonal(squared, 0)
    indices = variance.complete(squared)
    return squared[np.ix_(indices, indices)], indices


def _distances(stage: Stage) -> Iterator[tuple[str, *Distances]]:
    """Each measure's squared distances [n, n], with the indices [n] of the models."""
    for measure, column in stage.values.items():
        values = column.to_numpy()
        indices = np.flatnonzero(np.isfinite(values))
        scale = np.std(values[indices]) if len(indices) else 0.0
        if scale > 0:
            yield str(measure), variance.squared_differences(values[indices] / scale), indices
    for measure in stage.pairs:
        if distances := squared_of(stage, measure):
            yield measure, *distances


def _effects(
    stage: Stage, measure: str, squared: Numbers, indices: NDArray[np.int64], bootstrap: Bootstrap
) -> list[Effect]:
    shares, parents = [], [stage.parents[index] or "" for index in indices]
    for factor in stage.groups:
        labels = [factor.labels.iloc[index] for index in indices]
        among = None if factor.name == PARENT else parents  # which is what is asked
        if share := variance.explained(squared, labels, bootstrap=bootstrap, parents=among):
            shares.append((factor, share))
    return [Effect(measure, factor, share, len(shares)) for factor, share in shares]


def _mixed_models(stage: Stage) -> dict[str, variance.Mixed | str]:
    """With the factors of the models, not those of their parents, as fixed effects."""
    fits: dict[str, variance.Mixed | str] = {}
    children = stage.models["parent"].dropna()
    factors = [factor for factor in stage.groups if not factor.name.startswith(PARENT)]
    for measure, column in stage.values.items() if len(children) else ():
        values = column[children.index].pipe(lambda c: c[np.isfinite(c)])
        labels = {factor.name: factor.labels[values.index].tolist() for factor in factors}
        try:
            parents = list(children[values.index])
            fits[str(measure)] = variance.mixed(values.to_numpy(), labels, parents)
        except variance.NoMixedModel as error:
            fits[str(measure)] = str(error)
    return fits
