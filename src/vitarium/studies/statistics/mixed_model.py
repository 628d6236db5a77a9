"""Factors as fixed effects, the parent as a random effect: for models that share ancestors."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitarium.studies.statistics.bootstrap import Numbers


@dataclass(frozen=True)
class Mixed:
    """A linear mixed model of one number per model, by restricted maximum likelihood.

    The shares are of the sum of the three variances (Nakagawa and Schielzeth 2013,
    doi 10.1111/j.2041-210x.2012.00261.x).
    """

    models: int
    parents: int
    fixed: float
    """Share of what the factors predict."""
    parent: float
    """Share of the differences between parents that the factors do not predict."""
    residual: float
    p: Mapping[str, float]
    """By factor: of Wald's test that none of its values makes a difference."""
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
