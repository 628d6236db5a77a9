"""Which model of a stage is fitted: the richest that the number of models allows."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.studies.factors.analysis import SIGNIFICANT, Analysis, corrected
from vitarium.studies.factors.coding import Coded
from vitarium.studies.factors.design import (
    MAX_COLUMNS,
    Design,
    design_of,
    fits,
    num_products,
)
from vitarium.studies.factors.observed import Observed
from vitarium.studies.factors.surface import Surface
from vitarium.studies.statistics.bootstrap import Bootstrap

_DEGREES = (0, 2, 1)  # of main effects; 0: as many as there are


def analyze(observed: Observed, bootstrap: Bootstrap) -> Analysis:
    """Fit the richest model that the number of models allows.

    Raises InvalidInput where there are too few models even for the main effects, or all have the
    same value.
    """
    if not np.ptp(observed.target) > 0:
        raise InvalidInput(
            f"all {len(observed.ids)} models of the stage {observed.stage} have the same value, "
            f"{observed.target[0]:g}: there is nothing to explain"
        )
    factors = _with_degrees(observed)
    parents = observed.parents
    design, fitted = None, "clear"
    for name, is_low in (("all", False), ("low", True)):
        if num_products(factors, is_low=is_low) <= 2 * MAX_COLUMNS:
            candidate = design_of(factors, parents, is_low=is_low)
            if fits(candidate):
                design, fitted = candidate, name
                break
    tried: dict[tuple[int, int], float] = {}
    if design is None:
        tried = _tried(observed, factors, bootstrap)
        design = _with_clear_pairs(factors, parents, tried)
    surface = Surface(design, observed.target, bootstrap, observed.replicates)
    return Analysis(observed, surface, fitted, tried)


def _with_degrees(observed: Observed) -> list[Coded]:
    """The factors, as polynomials of so low a degree that their main effects fit."""
    design = None
    for degree in _DEGREES:
        factors = [replace(factor, degree=degree) for factor in observed.factors]
        design = design_of(factors, observed.parents, [])
        if fits(design):
            return factors
    assert design is not None
    columns, models = design.matrix.shape[1], len(observed.ids)
    if models > columns:
        return factors
    names = ", ".join(factor.name for factor in observed.factors)
    raise InvalidInput(
        f"{models} models of the stage {observed.stage} are too few for its "
        f"{len(observed.factors)} factors ({names}): their main effects have {columns} "
        f"coefficients, for which at least {columns + 1} models are needed; leave factors out: "
        f"{parameter('ignored', 'NAMES')}"
    )


def _tried(
    observed: Observed, factors: Sequence[Coded], bootstrap: Bootstrap
) -> dict[tuple[int, int], float]:
    """P of each pair's interaction beside all main effects (Bonferroni's)."""
    pairs = list(combinations(range(len(factors)), 2))
    tried = {}
    for pair in pairs:
        design = design_of(factors, observed.parents, [pair], is_low=True)
        if len(design.terms[-1].columns) and design.matrix.shape[1] < len(observed.ids):
            p = Surface(design, observed.target, bootstrap).p_values[-1]
            tried[pair] = corrected(p, len(pairs))
    return tried


def _with_clear_pairs(
    factors: Sequence[Coded],
    parents: Sequence[str] | None,
    tried: dict[tuple[int, int], float],
) -> Design:
    """Main effects, and as many of the clear interactions as fit, the clearest first."""
    clear = sorted((p, pair) for pair, p in tried.items() if p < SIGNIFICANT)
    design = design_of(factors, parents, [])
    chosen: list[tuple[int, int]] = []
    for _, pair in clear:
        candidate = design_of(factors, parents, [*chosen, pair], is_low=True)
        if not fits(candidate):
            break
        chosen.append(pair)
        design = candidate
    return design
