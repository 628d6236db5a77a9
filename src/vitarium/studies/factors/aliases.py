"""What a design cannot tell apart: factors that never vary apart, or hardly ever do."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from vitarium.studies.factors.analysis import Analysis, product_name
from vitarium.studies.factors.design import Design, Term
from vitarium.studies.statistics.bootstrap import Numbers

Kind = Literal["equal", "nested", "aliased", "empty", "close"]
CLOSE = 0.8
"""Canonical correlation from which on two factors are hardly separated."""
_TOLERANCE = 1e-6


class Alias(NamedTuple):
    """Factors whose effects cannot be told apart.

    kind: "equal": they never vary apart; "nested": `name` determines `others`; "aliased": the
    others together determine it; "empty": an interaction for which combinations are missing;
    "close": they vary together for the most part, by their canonical correlation.
    """

    kind: Kind
    name: str
    others: tuple[str, ...]
    correlation: float = 1.0


def aliases(analysis: Analysis) -> list[Alias]:
    """The gravest first."""
    design, factors = analysis.design, analysis.factors
    listed = [Alias("equal", f.name, f.equivalent) for f in factors if f.equivalent]
    listed += [Alias("nested", f.name, f.nested_in) for f in factors if f.nested_in]
    nested = {frozenset((f.name, outer)) for f in factors for outer in f.nested_in}
    for term in design.terms:
        names = [factors[index].name for index in term.factors]
        if len(term.columns) == term.num_raw and term.num_raw:
            continue
        if any(factors[index].is_conditional for index in term.factors):
            continue  # that only some models have it is another factor's doing
        if len(term.factors) == 2:
            if frozenset(names) not in nested:
                listed.append(Alias("empty", product_name(names), ()))
        elif others := _determining(design, term):
            listed.append(Alias("aliased", names[0], tuple(factors[i].name for i in others)))
    listed += [
        close for close in _close(analysis) if frozenset((close.name, *close.others)) not in nested
    ]
    return listed


def _determining(design: Design, term: Term) -> Sequence[int]:
    """The fewest other factors whose columns give those of a term that are not in the design."""
    factors, index = design.factors, term.factors[0]
    missing = np.setdiff1d(np.arange(term.num_raw), term.raw)
    others = [i for i in range(len(factors)) if i != index]
    own = factors[index].basis[:, term.raw]  # in part its own other columns do
    for count in (1, 2, 3):
        for chosen in combinations(others, count):
            columns = np.column_stack(
                [np.ones(len(design.matrix)), own, *(factors[i].basis for i in chosen)]
            )
            target = factors[index].basis[:, missing]
            rest = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
            if (np.abs(rest) < _TOLERANCE).all():
                return chosen
    return others


def _close(analysis: Analysis) -> Iterator[Alias]:
    for first, second in combinations(analysis.factors, 2):
        correlation = _canonical(first.basis, second.basis)
        if CLOSE <= correlation < 1 - _TOLERANCE:
            yield Alias("close", first.name, (second.name,), correlation)


def _canonical(first: Numbers, second: Numbers) -> float:
    """The largest canonical correlation of columns [models, a] and [models, b]."""
    if not first.shape[1] or not second.shape[1]:
        return 0.0
    bases = [np.linalg.qr(columns)[0] for columns in (first, second)]
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)[0])
