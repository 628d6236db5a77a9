"""Tables of what the factors of a stage explain."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitarium.formats.summary import text
from vitarium.studies.factors.aliases import Alias
from vitarium.studies.factors.analysis import TIMES, Analysis
from vitarium.studies.factors.data_amount import Equivalent, Equivalents
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import DASH, Columns, Unit
from vitarium.studies.report.texts import Texts

texts = Texts("factors", "tables")
_SEPARATED = {
    "equal": "never varies apart from",
    "nested": "determines",
    "aliased": "is determined by, together,",
    "empty": "lacks combinations",
    "close": "varies mostly together with",
}


def value_text(value: Any) -> str:
    """A factor's value as tables show it."""
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def shares(analysis: Analysis, unit: Unit) -> Table:
    """A row per factor, the most important first."""
    rows: list[dict[str, Any]] = []
    for effect in analysis.effects:
        needed = analysis.models_needed(effect)
        families = effect.is_between and analysis.observed.parents
        rows.append(
            {
                "factor": effect.factor.name,
                "alone": effect.share,
                "with interactions": effect.total,
                "with noise": effect.raw_share,
                "p": effect.p,
                "from": value_text(effect.lowest),
                "to": value_text(effect.highest),
                "difference": effect.difference,
                "needed": f"{needed:,} {'parents' if families else 'models'}" if needed else DASH,
            }
        )
    units = Columns(dict.fromkeys(("alone", "with interactions", "with noise"), "share"))
    units |= {"p": "p", "difference": "gain" if unit == "fraction" else unit}
    return texts.table("shares", rows, units=units)


def interactions(analysis: Analysis) -> Table:
    rows = [(i.name, i.share, i.p) for i in analysis.interactions]
    columns: Columns = {"factors": "", "share": "share", "p": "p"}
    return texts.table("interactions", rows, columns, folded=None)


def noise(analysis: Analysis) -> Table:
    """What neither main effects nor interactions of two explain."""
    surface = analysis.surface
    rows: list[tuple[Any, ...]] = []
    if surface.parents_freedom:
        freedom = surface.parents_freedom
        rows.append(("parents beyond their factors", surface.parents_share, freedom))
    rows.append(("all else: seeds, and interactions of more factors", surface.rest_share))
    rows[-1] += (surface.freedom,)
    if (seeds := surface.seeds_share) is not None:
        replicates = analysis.observed.replicates
        assert replicates is not None
        rows.append(("of it, seeds alone", seeds, len(replicates) - len(np.unique(replicates))))
    columns: Columns = {"of": "", "share": "share", "degrees of freedom": ""}
    return texts.table("noise", rows, columns)


def curves(analysis: Analysis, unit: Unit) -> Table:
    """A row per value of each factor."""
    rows = []
    for index, factor in enumerate(analysis.factors):
        curve = analysis.curve(index)
        for point, predicted in zip(curve.points, curve.predicted, strict=True):
            count = None
            if not factor.is_continuous:
                count = int((factor.codes == factor.levels.index(point)).sum())
            rows.append((factor.name, value_text(point), count, predicted))
    columns: Columns = {"factor": "", "value": "", "models": "", "predicted": unit}
    return texts.table("curves", rows, columns, folded=None)


def separation(listed: Sequence[Alias]) -> Table:
    """What is confounded with what."""
    rows = [
        (alias.name, _SEPARATED[alias.kind], ", ".join(alias.others) or DASH, alias.correlation)
        for alias in listed
    ]
    columns: Columns = {"factor": "", "how": "", "with": "", "correlation": ""}
    return texts.table("aliases", rows, columns, folded=None)


def worth(row: Equivalent, value: float) -> str:
    """`x 2.3`; where it is beyond the range of amounts, that it is."""
    if math.isinf(value):
        return f"more than {TIMES} {row.limits[1]:.3g}"
    return f"{TIMES} {value:.3g}" if value else f"less than {TIMES} {row.limits[0]:.3g}"


def equivalents(known: Equivalents) -> Table:
    """A row per level of each factor and amount of data."""
    rows = [
        {
            "factor": row.name,
            "level": row.level,
            "reference": row.reference,
            known.data: row.amount,
            "equivalent data": worth(row, row.factor),
            "low": worth(row, row.low),
            "high": worth(row, row.high),
            "multiple": row.factor if 0 < row.factor < math.inf else None,
        }
        for row in known.rows
    ]
    return texts.table("equivalents", rows, folded=None)


def models(analysis: Analysis, target: str, unit: Unit) -> Table:
    """A row per model: its factors, the target, and what is left of it."""
    observed, rows = analysis.observed, []
    for number, id in enumerate(observed.ids):
        row: dict[str, Any] = {"model": id}
        row |= {factor.name: value_text(factor.values[number]) for factor in analysis.factors}
        value, residual = observed.target[number], analysis.surface.residuals[number]
        rows.append(row | {target: float(value), "residual": float(residual)})
    gain: Unit = "gain" if unit == "fraction" else unit
    units: dict[str, Unit] = {"model": "id", target: unit, "residual": gain}
    return texts.table("models", rows, units=units, folded=True)
