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
    parents: Sequence[str] | None = None,
    permutations: int = 999,
) -> Explained | None:
    """What a factor explains of squared distances [models, models], with labels [models].

    Args:
        parents: the parent of each model, between which models differ whatever the factor does.
            Labels of a factor that is the parents' own are shuffled between parents, not between
            models, which would make of many children of few parents a large sample of parents; all
            others within the children of each parent (Anderson and ter Braak 2003, Permutation
            tests for multi-factorial analysis of variance, doi 10.1080/00949650215733).

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
    p = _permutation(squared, _orders(codes, parents, permutations, bootstrap.seed))
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


def _orders(codes: Indices, parents: Sequence[str] | None, permutations: int, seed: int) -> Indices:
    """Labels [1 + permutations, models]: as they are, and shuffled."""
    generator = np.random.default_rng(derive(seed, "permutation", len(codes)))
    names = np.zeros(len(codes)) if parents is None else np.asarray(parents)
    _, first, parent = np.unique(names, return_index=True, return_inverse=True)
    if len(first) > 1 and (codes == codes[first][parent]).all():
        shuffled = [generator.permutation(codes[first])[parent] for _ in range(permutations)]
    else:  # ordered by parent first, models keep their parent's places
        shuffled, places = [], np.argsort(parent, kind="stable")
        for _ in range(permutations):
            order = np.empty_like(codes)
            order[places] = codes[np.lexsort((generator.random(len(codes)), parent))]
            shuffled.append(order)
    return np.stack([codes, *shuffled])


def _permutation(squared: Numbers, orders: Indices) -> float:
    """How often shuffled labels leave as little within groups as the labels do, the first row."""
    within = np.zeros(len(orders))
    for number in range(orders.max() + 1):
        members = (orders == number).astype(np.float64)
        size = members.sum(1)
        within += ((members @ squared) * members).sum(1) / np.where(size > 0, size, 1)
    as_much = within[1:] <= within[0] * (1 + 1e-9)
    return float((1 + as_much.sum()) / len(orders))


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
    p: Mapping[str, float]  # by factor: of the F test that none of its values makes a difference
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
        p = {name: _f_test(fit, design, parents, columns[name]) for name in columns}
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


def _freedom(design: Numbers, parents: Sequence[str], indices: list[int]) -> int:
    """Residual degrees of freedom of a factor: those of the parents for one that does not vary
    among the children of any, else those of the models (Pinheiro and Bates 2000, Mixed-Effects
    Models in S and S-PLUS, section 2.4.2)."""
    groups = (np.asarray(parents)[:, None] == np.unique(parents)).astype(np.float64)
    rank = np.linalg.matrix_rank

    def is_of_parents(columns: list[int]) -> bool:
        return bool(rank(np.hstack([groups, design[:, columns]])) == groups.shape[1])

    if is_of_parents(indices):
        between = [c for c in range(design.shape[1]) if is_of_parents([c])]
        return int(groups.shape[1] - rank(design[:, between]))
    return int(len(design) - rank(np.hstack([groups, design])))


def _f_test(fit: Any, design: Numbers, parents: Sequence[str], indices: list[int]) -> float:
    """P of Wald's F that these coefficients are all nought; NaN without degrees of freedom."""
    from scipy import stats

    freedom = _freedom(design, parents, indices)
    effects = np.asarray(fit.fe_params)[indices]
    covariance = np.asarray(fit.cov_params())[np.ix_(indices, indices)]
    if freedom < 1:
        return math.nan
    try:
        statistic = float(effects @ np.linalg.solve(covariance, effects)) / len(indices)
    except np.linalg.LinAlgError:
        return math.nan
    return float(stats.f.sf(statistic, len(indices), freedom))
