"""What factors explain of a stage's accuracies, predictions, representations and weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers
from vitarium.studies.statistics.factors import PARENT, Factor, is_seed
from vitarium.studies.statistics.mixed_model import Mixed, NoMixedModel, mixed
from vitarium.studies.statistics.population import Stage
from vitarium.studies.statistics.variance import Explained, complete, explained, squared_differences

DISTANCES: Mapping[str, Callable[[Numbers], Numbers]] = {
    "agreement": lambda shares: 1 - shares,
    "js_divergence": lambda divergences: divergences,
    "cka": lambda similarities: 1 - similarities,
    "weight_l2": lambda distances: distances**2,
    "weight_cosine": lambda cosines: 1 - cosines,
}
"""Measures of pairs as squared Euclidean distances: of one-hot predictions, of square roots of
probabilities (about), of normalised Gram matrices, of weights, and of their directions; each up to
a constant, which shares of variance do not have."""
FEWEST = 4
"""Models of which it is asked what explains their variety."""
SAME_PARENT = "of the same parent"


@dataclass(frozen=True)
class Finding:
    """What one factor explains of one measure."""

    measure: str
    factor: Factor
    share: Explained
    tested: int
    """How many factors were tried for the measure."""

    @property
    def p(self) -> float:
        """Bonferroni's: as many times larger as there were factors."""
        return min(1.0, self.share.p * self.tested)

    @property
    def is_clear(self) -> bool:
        """More than chance, by the permutation test."""
        return self.p < 0.05


@dataclass(frozen=True)
class Kin:
    """Pairs of models that are equally close kin."""

    name: str
    chosen: NDArray[np.bool_]
    """[models, models]"""

    @property
    def pairs(self) -> int:
        return int(self.chosen.sum()) // 2


@dataclass(frozen=True)
class Analysis:
    """A stage's findings."""

    stage: Stage
    findings: Sequence[Finding]
    mixed: Mapping[str, Mixed | str]
    """By measure: the mixed model, or why there is none. Empty for a stage without parents."""
    kin: Sequence[Kin]
    """The closest first; empty for a stage of one parent or none."""
    ancestry: Factor | None
    """The factor of parents by which kin are told apart, e.g. the parent's objective."""

    def of(self, measure: str) -> list[Finding]:
        """What is clear first, then what explains most (by the share that chance does not)."""
        found = [finding for finding in self.findings if finding.measure == measure]
        return sorted(found, key=lambda f: (not f.is_clear, -f.share.adjusted.value))

    def likeliest(self, *measures: str) -> Finding | None:
        """The finding about these measures that chance explains worst."""
        found = [finding for measure in measures for finding in self.of(measure)]
        return min(found, key=lambda f: (f.p, -f.share.adjusted.value), default=None)

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(finding.measure for finding in self.findings))

    @property
    def telling(self) -> str | None:
        """The factor that explains most of the accuracy, or else of anything, if any is known."""
        for measure in ("accuracy", *self.measures):
            if found := self.of(measure):
                return found[0].factor.name
        return None


def analyse(stage: Stage, bootstrap: Bootstrap) -> Analysis:
    """Work out what explains the variety of a stage's models."""
    of_parents = (f for f in stage.groups if f.name.startswith(f"{PARENT}'s "))
    ancestry = next((f for f in of_parents if not is_seed(f.name)), None)
    return Analysis(
        stage,
        [*_of_numbers(stage, bootstrap), *_of_pairs(stage, bootstrap)],
        _mixed_models(stage),
        kinship(stage, ancestry),
        ancestry,
    )


def kinship(stage: Stage, ancestry: Factor | None) -> list[Kin]:
    """Pairs of one parent, of different parents of one kind, and of parents of different kinds."""
    parents = np.asarray([parent or "" for parent in stage.parents])
    if len(set(parents.tolist())) < 2:
        return []
    has_parent = (parents != "")[:, None] & (parents != "")[None, :]
    different = ~np.eye(len(parents), dtype=bool)
    same = (parents[:, None] == parents[None, :]) & has_parent & different
    others = ~same & has_parent & different
    if ancestry is None:
        found = [Kin(SAME_PARENT, same), Kin("of different parents", others)]
    else:
        kinds = np.asarray(ancestry.labels.tolist())
        alike = kinds[:, None] == kinds[None, :]
        what = ancestry.name.removeprefix(f"{PARENT}'s ")
        found = [
            Kin(SAME_PARENT, same),
            Kin(f"of different parents, same {what}", others & alike),
            Kin(f"of parents of different {what}", others & ~alike),
        ]
    return [kin for kin in found if kin.pairs]


def alike_in(factor: Factor) -> NDArray[np.bool_]:
    """Pairs of different models with the same value, [models, models]."""
    labels = np.asarray(factor.labels.tolist())
    alike: NDArray[np.bool_] = labels[:, None] == labels[None, :]
    return alike & ~np.eye(len(labels), dtype=bool)


def nearest_alike(
    squared: Numbers, labels: Sequence[str], parents: Sequence[str], bootstrap: Bootstrap
) -> tuple[Estimate, float] | None:
    """Share of models whose nearest model of another parent has the same label; and what chance
    would give. Siblings are left out: a parent's children are alike whatever its kind.

    Of models for which another parent of the same label has children; None where there are none.
    """
    names, families = np.asarray(labels), np.asarray(parents)
    others = families[:, None] != families[None, :]
    alike = (names[:, None] == names[None, :]) & others
    asked = np.flatnonzero(alike.any(1))
    if not len(asked):
        return None
    nearest = np.where(others, squared, np.inf)[asked].argmin(1)
    hits = (names[nearest] == names[asked]).astype(np.float64)
    return bootstrap.mean(hits), float((alike[asked].sum(1) / others[asked].sum(1)).mean())


def squared_of(stage: Stage, measure: str) -> tuple[Numbers, NDArray[np.int64]] | None:
    """Squared distances between the models that have all of them, and the places of these."""
    if measure not in stage.pairs or measure not in DISTANCES:
        return None
    squared = np.clip(DISTANCES[measure](stage.pairs[measure]), 0, None)
    np.fill_diagonal(squared, 0)
    places = complete(squared)
    return squared[np.ix_(places, places)], places


def _of_numbers(stage: Stage, bootstrap: Bootstrap) -> list[Finding]:
    found = []
    for measure in stage.values:
        column = stage.values[measure].to_numpy()
        places = np.flatnonzero(np.isfinite(column))
        scale = np.std(column[places]) if len(places) else 0.0
        if scale > 0:
            squared = squared_differences(column[places] / scale)
            found += _findings(stage, measure, squared, places, bootstrap)
    return found


def _of_pairs(stage: Stage, bootstrap: Bootstrap) -> list[Finding]:
    found = []
    for measure in DISTANCES:
        if there := squared_of(stage, measure):
            found += _findings(stage, measure, *there, bootstrap)
    return found


def _findings(
    stage: Stage,
    measure: str,
    squared: Numbers,
    places: NDArray[np.int64],
    bootstrap: Bootstrap,
) -> list[Finding]:
    if len(places) < FEWEST:
        return []
    shares = {}
    for factor in stage.groups:
        labels = [factor.labels.iloc[place] for place in places]
        of_parents = factor.name.startswith(f"{PARENT}'s ")
        parents = [stage.parents[place] or "" for place in places] if of_parents else None
        if share := explained(squared, labels, bootstrap=bootstrap, blocks=parents):
            shares[factor.name] = (factor, share)
    return [Finding(measure, factor, share, len(shares)) for factor, share in shares.values()]


def _mixed_models(stage: Stage) -> dict[str, Mixed | str]:
    """With the stage's own factors as fixed effects."""
    if not stage.has_parents:
        return {}
    own = [factor for factor in stage.groups if not factor.name.startswith(PARENT)]
    found: dict[str, Mixed | str] = {}
    for measure in stage.values:
        column = stage.values[measure]
        ids = [
            id
            for id, parent in zip(stage.ids, stage.parents, strict=True)
            if parent and np.isfinite(column[id])
        ]
        labels = {factor.name: factor.labels[ids].tolist() for factor in own}
        parents = [str(stage.models.loc[id, "parent"]) for id in ids]
        try:
            found[measure] = mixed(column[ids].to_numpy(), labels, parents)
        except NoMixedModel as why:
            found[measure] = str(why)
    return found
