"""How much of the variety of models a factor explains, for numbers and for distances alike.

Squared distances stand for the models: (x - y)^2 for a number, ||x - y||^2 for weights. What is
within groups is compared with what there is, which for a number is the analysis of variance, and
for distances Anderson's (2001) analysis of variance without coordinates.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vitarium.core.seeds import derive
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers

Indices = NDArray[np.int64]


class Explained(NamedTuple):
    """The share of the variance that lies between groups."""

    eta_squared: Estimate
    """1 - SS_within / SS_total, in [0, 1]; (groups - 1) / (models - 1) is expected of chance."""
    adjusted: Estimate
    """1 - MS_within / MS_total (epsilon squared, adjusted R^2): 0 is expected of chance."""
    p: float
    """Share of shuffled labels that explain as much or more (the labels as they are count, too)."""
    models: int
    groups: int


def squared_differences(values: Numbers) -> Numbers:
    """[models] -> [models, models]"""
    return (values[:, None] - values[None, :]) ** 2


def complete(squared: Numbers) -> Indices:
    """Indices [n] of models all of whose distances are known, of `squared` [models, models].

    The models that lack most distances are left out first.
    """
    indices = np.arange(len(squared))
    while len(indices):
        lacking = (~np.isfinite(squared[np.ix_(indices, indices)])).sum(1)
        if not lacking.any():
            break
        indices = np.delete(indices, int(lacking.argmax()))
    return indices


def explained(
    squared: Numbers,
    labels: Sequence[str],
    *,
    bootstrap: Bootstrap,
    blocks: Sequence[str] | None = None,
    permutations: int = 999,
) -> Explained | None:
    """What a factor explains of squared distances [models, models], with labels [models].

    Args:
        blocks: for a factor of whole groups of models, e.g. of their parents: the group of each.
            Labels are then shuffled between groups, not between models, which would make of many
            children of few parents a large sample of parents.

    The bootstrap's interval is of the adjusted share, in which copies of a model are not compared
    with each other (they would look like a close group); that of eta squared follows from it.

    Returns None where nothing can be explained: models do not differ, or the factor has one value,
    or another one for each model.
    """
    names = np.asarray([str(label) for label in labels])
    codes, values = pd.factorize(names)
    groups = [np.flatnonzero(codes == number) for number in range(len(values))]
    n, k, once = len(labels), len(groups), np.ones((1, len(labels)))
    if not 1 < k < n or not _mean_pair(squared, once)[0] > 0:
        return None
    adjusted = float(_adjusted(squared, groups, once)[0])
    share = bootstrap.estimate(adjusted, _adjusted(squared, groups, bootstrap.counts(n)), n)

    def eta(adjusted: float) -> float:
        """By the degrees of freedom of SS_within and SS_total."""
        return float(np.clip(1 - (1 - adjusted) * (n - k) / (n - 1), 0, 1))

    low, high = (None if bound is None else eta(bound) for bound in (share.low, share.high))
    p = _permutation(squared, codes, blocks, permutations, bootstrap.seed)
    return Explained(Estimate(eta(adjusted), low, high, share.level), share, p, n, k)


def _mean_pair(squared: Numbers, counts: Numbers) -> Numbers:
    """Mean over pairs of different models, by how often each model counts; NaN without pairs."""
    total = ((counts @ squared) * counts).sum(1)
    pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
    return np.divide(total, pairs, out=np.full(len(counts), math.nan), where=pairs > 0)


def _adjusted(squared: Numbers, groups: list[Indices], counts: Numbers) -> Numbers:
    """1 - MS_within / MS_total for every row of counts [draws, models]."""
    within, freedom = np.zeros((2, len(counts)))
    for members in groups:
        drawn = counts[:, members]
        mean = _mean_pair(squared[np.ix_(members, members)], drawn) / 2
        degrees = np.where(np.isnan(mean), 0.0, drawn.sum(1) - 1)
        within += degrees * np.nan_to_num(mean)
        freedom += degrees
    total = _mean_pair(squared, counts) / 2
    valid = (freedom > 0) & (total > 0)
    ratio = np.full(len(counts), math.nan)
    ratio[valid] = within[valid] / freedom[valid] / total[valid]
    return 1 - ratio


def _permutation(
    squared: Numbers, codes: Indices, blocks: Sequence[str] | None, permutations: int, seed: int
) -> float:
    """How often shuffled labels leave as little within groups as the labels do."""
    n = len(squared)
    names = np.arange(n).astype(str) if blocks is None else np.asarray(blocks)
    _, first, block = np.unique(names, return_index=True, return_inverse=True)
    generator = np.random.default_rng(derive(seed, "permutation", n))
    orders = [first, *(generator.permutation(first) for _ in range(permutations))]
    shuffled = codes[np.stack(orders)][:, block]
    within = np.zeros(len(shuffled))
    for number in range(codes.max() + 1):
        members = (shuffled == number).astype(np.float64)
        size = members.sum(1)
        within += ((members @ squared) * members).sum(1) / np.where(size > 0, size, 1)
    as_much = within[1:] <= within[0] * (1 + 1e-9)
    return float((1 + as_much.sum()) / (1 + permutations))


class Mixed(NamedTuple):
    """A linear mixed model of one number per model, by restricted maximum likelihood.

    The shares are of the sum of the three variances (Nakagawa and Schielzeth 2013,
    doi 10.1111/j.2041-210x.2012.00261.x).
    """

    models: int
    parents: int
    fixed: float  # share of what the factors predict
    parent: float  # share of the differences between parents that the factors do not predict
    residual: float
    p: Mapping[str, float]  # by factor: of Wald's test that none of its values makes a difference
    left_out: tuple[str, ...] = ()
    """Factors that the others determine, so that there is nothing left for them to explain."""


class NoMixedModel(Exception):
    """There is none for these models; says why."""


def mixed(values: Numbers, factors: Mapping[str, Sequence[str]], parents: Sequence[str]) -> Mixed:
    """value ~ factor + ... + (1 | parent), for values [models] and labels [models] of each factor.

    Raises NoMixedModel where there are too few parents or models, or nothing varies.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    groups = len(set(parents))
    if groups < 2:
        raise NoMixedModel("a random effect of the parent needs at least two parents")
    if not np.std(values) > 0:
        raise NoMixedModel("it is the same for all models")
    design, columns, left_out = _design(factors, len(values))
    if len(values) < design.shape[1] + groups + 1:
        raise NoMixedModel(
            f"{len(values)} models are too few for {design.shape[1]} coefficients and "
            f"{groups} parents"
        )
    scaled = (values - values.mean()) / values.std()
    with warnings.catch_warnings():
        # a variance of nought, at the boundary, is an answer
        for category in (ConvergenceWarning, RuntimeWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        try:
            # without gradients, which are singular where the parents' variance is nought
            model = MixedLM(scaled, design, groups=np.asarray(parents))
            fit = model.fit(reml=True, method=["powell", "nm"])
        except (np.linalg.LinAlgError, ValueError) as error:
            raise NoMixedModel(f"its fit failed: {error}") from None
        p = {name: _wald(fit, indices) for name, indices in columns.items()}
    variances = np.array(
        [np.var(design @ np.asarray(fit.fe_params)), np.asarray(fit.cov_re)[0, 0], fit.scale]
    )
    if not np.isfinite(variances).all() or not variances.sum() > 0:
        raise NoMixedModel("its fit did not converge")
    fixed, parent, residual = (variances / variances.sum()).tolist()
    return Mixed(len(values), groups, fixed, parent, residual, p, tuple(left_out))


def _design(
    factors: Mapping[str, Sequence[str]], models: int
) -> tuple[Numbers, dict[str, list[int]], list[str]]:
    """An intercept, and a column for each value but the first that those before do not give."""
    design, columns, left_out = [np.ones(models)], {}, []
    for name, labels in factors.items():
        texts = np.asarray([str(label) for label in labels])
        indices = []
        for value in list(dict.fromkeys(sorted(texts.tolist())))[1:]:
            candidate = (texts == value).astype(np.float64)
            if np.linalg.matrix_rank(np.stack([*design, candidate])) > len(design):
                indices.append(len(design))
                design.append(candidate)
        if indices:
            columns[name] = indices
        elif len(set(texts.tolist())) > 1:
            left_out.append(name)
    return np.stack(design, axis=1), columns, left_out


def _wald(fit: Any, indices: list[int]) -> float:
    """P of chi squared that these coefficients are all nought."""
    from scipy import stats

    effects = np.asarray(fit.fe_params)[indices]
    covariance = np.asarray(fit.cov_params())[np.ix_(indices, indices)]
    try:
        statistic = float(effects @ np.linalg.solve(covariance, effects))
    except np.linalg.LinAlgError:
        return math.nan
    return float(stats.chi2.sf(statistic, len(indices)))
