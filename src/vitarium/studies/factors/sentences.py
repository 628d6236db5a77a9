"""What the study of factors says in words, each with its number and interval."""

import math
from collections.abc import Iterator, Sequence

from vitarium.studies.factors.aliases import Alias
from vitarium.studies.factors.analysis import NEGLIGIBLE, Analysis, Effect
from vitarium.studies.factors.data_amount import Equivalent, Equivalents
from vitarium.studies.factors.tables import value_text, worth
from vitarium.studies.report.text import Unit, number, with_interval
from vitarium.studies.report.texts import Texts

texts = Texts("factors", "sentences")
_MAX_CLEAR = 4  # factors and interactions that have a sentence each


def sentences(
    analysis: Analysis, listed: Sequence[Alias], known: Equivalents | None, target: str, unit: Unit
) -> list[str]:
    """What matters most, what could not be separated, and what data are worth."""
    return [
        _first(analysis, target, unit),
        *_effects(analysis, target, unit),
        *_interactions(analysis),
        *_needed(analysis),
        *_aliases(listed),
        *(_equivalents(known, analysis.surface.bootstrap.confidence_level) if known else ()),
    ]


def _first(analysis: Analysis, target: str, unit: Unit) -> str:
    surface, values = analysis.surface, analysis.observed.target
    noise = ""
    if surface.parents_freedom:
        noise += texts("parents", share=surface.parents_share)
    if (seeds := surface.seeds_share) is not None:
        noise += texts("seeds", share=seeds)
    else:
        noise += texts("rest", share=surface.rest_share)
    spread = {"mean": number(values.mean(), unit), "deviation": number(values.std(ddof=1), unit)}
    explained = surface.share(*range(len(surface.design.terms)))
    about = {"target": target, "models": len(values), **spread}
    return texts("first", explained=explained, noise=noise, **about)


def _effects(analysis: Analysis, target: str, unit: Unit) -> Iterator[str]:
    gain: Unit = "gain" if unit == "fraction" else unit
    clear = [effect for effect in analysis.effects if effect.is_clear]
    for rank, effect in enumerate(clear[:_MAX_CLEAR]):
        more = effect.total.value > effect.share.value + 0.02
        yield texts(
            "main",
            factor=_name(effect),
            most="most" if rank == 0 else "next" if rank == 1 else "then",
            share=effect.share,
            total=texts("total", total=effect.total.value) if more else "",
            lowest=value_text(effect.lowest),
            highest=value_text(effect.highest),
            target=target,
            difference=with_interval(effect.difference, gain),
        )
    unclear = [effect for effect in analysis.effects if not effect.is_clear]
    negligible = [_name(effect) for effect in unclear if effect.is_negligible]
    tested = [e for e in unclear if not e.is_negligible and not math.isnan(e.p)]
    undecided = [_name(effect) for effect in tested]
    if untested := [_name(effect) for effect in unclear if math.isnan(effect.p)]:
        yield texts("untested", names=untested, count=len(untested))
    if clear and undecided:
        yield texts("unclear", names=undecided)
    if negligible:
        yield texts("negligible", names=negligible, share=NEGLIGIBLE)
    if not clear and undecided:
        best = min(tested, key=lambda e: e.p)
        yield texts("nothing", factor=_name(best), share=best.share, p=best.p)


def _name(effect: Effect) -> str:
    return " / ".join((effect.factor.name, *effect.factor.equivalent))


def _interactions(analysis: Analysis) -> Iterator[str]:
    clear = [i for i in analysis.interactions if i.is_clear and i.share is not None]
    for interaction in clear[:_MAX_CLEAR]:
        first, second = (factor.name for factor in interaction.factors)
        yield texts("interaction", first=first, second=second, share=interaction.share)
    if not clear and analysis.interactions:
        yield texts("no_interaction")


def _needed(analysis: Analysis) -> Iterator[str]:
    counts = []
    for effect in analysis.effects:
        if (count := analysis.models_needed(effect)) is not None:
            families = effect.is_between and analysis.observed.parents
            unit = "parents" if families else "models"
            counts.append(f"{count:,} {unit} for {effect.factor.name}")
    if counts:
        yield texts("needed", counts=counts)


def _aliases(listed: Sequence[Alias]) -> Iterator[str]:
    for alias in listed:
        others = list(alias.others)
        if alias.kind == "equal":
            yield texts("equal", names=[alias.name, *others])
        elif alias.kind == "close":
            yield texts("close", name=alias.name, others=others, correlation=alias.correlation)
        elif alias.kind == "nested":
            yield texts("nested", name=alias.name, others=others)
        elif alias.kind == "aliased":
            yield texts("aliased", name=alias.name, others=others)
    if names := [alias.name for alias in listed if alias.kind == "empty"]:
        yield texts("empty", names=names)


def _equivalents(known: Equivalents, level: float) -> Iterator[str]:
    """Of every level that differs from its reference, at the smallest amount where it is known."""
    inside = [row for row in known.rows if 0 < row.factor < math.inf]
    different = [row for row in inside if row.low > 1 or row.high < 1]
    shown = dict[tuple[str, str], Equivalent]()
    for row in different:
        shown.setdefault((row.name, row.level), row)
    for row in shown.values():
        bounds = f"{100 * level:g}\u00a0% CI {worth(row, row.low)} to {worth(row, row.high)}"
        value = f"**{worth(row, row.factor)}** ({bounds})"
        levels = {"level": row.level, "reference": row.reference}
        yield texts("equivalent", amount=row.amount, factor=row.name, worth=value, **levels)
    if inside and not different:
        yield texts("no_equivalent")
    if beyond := len(known.rows) - len(inside):
        yield texts("out_of_range", beyond=beyond, all=len(known.rows))
    for factor, why in known.without.items():
        yield texts("without_equivalent", factor=factor, why=why)
