"""Which generating factors a number of the models depends on: main effects and interactions."""

from collections.abc import Mapping

from pydantic import Field

from vitarium.core.printable import printable, shortened
from vitarium.core.registry import plugins
from vitarium.studies.base import Population, Section, Sentences, Tables, study
from vitarium.studies.factors import figures, tables
from vitarium.studies.factors.aliases import aliases
from vitarium.studies.factors.analysis import Analysis
from vitarium.studies.factors.data_amount import data_factor, equivalents
from vitarium.studies.factors.fit import analyze
from vitarium.studies.factors.observed import Observed, observe
from vitarium.studies.factors.sentences import sentences
from vitarium.studies.report.text import Unit, listed, unit_of
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Resampled

texts = Texts("factors", "page")
_MAX_TARGET = 60  # characters of a target as titles show it


class Factors(Resampled):
    """Settings of the study of factors."""

    target: str = Field("test_accuracy", min_length=1)
    """What is explained: a metric, a measured value, or an SQL expression of these, as `vitarium
    query` has them, e.g. `accuracy/top5` or `ln(test_loss)`."""
    stage: str | None = None
    """Stage whose models are studied; none: the last, which descends furthest."""
    ignored: tuple[str, ...] = ()
    """Factors that are left out of the fit."""
    data_factor: str | None = None
    """Factor that is the amount of data; none: the data's `train_limit`, where it varies."""
    references: dict[str, str] = {}
    """Levels that others are compared with in terms of data, by factor, e.g. `{"augmentation":
    "none"}`; of a factor without one: `none`, `false`, 0, or else the most frequent level."""


@study("factors", title="Factors", of="records", tiny={"n_resamples": 20, "stage": "finetune"})
def factors(config: Factors, population: Population) -> Tables:
    """Which factors a metric or measure depends on: effects, interactions, and what data are worth.

    Shares of the variance of every factor that varies in a stage and of every pair, with intervals;
    curves and heat maps; how much more data each level of a factor is worth; what the design cannot
    tell apart, and how many models would. Nothing is measured: `vitarium measure` does that before.

    Examples:

      vitarium study factors demo-zoo

      vitarium study factors demo-zoo --target calibration_error --stage finetune

      vitarium study factors demo-zoo --target "ln(test_loss)" --where "optimizer = 'adamw'"
    """
    population.progress.step("reading models", 0, 1)
    observed = observe(population, config.target, config.stage, config.ignored)
    return tables_of(config, population.name, observed, population)


def tables_of(
    config: Factors, name: str, observed: Observed, population: Population | None = None
) -> Tables:
    """The tables of a stage whose models are read."""
    if population is not None:
        population.progress.step("fitting", 0, 1)
    target, unit = _label(config.target), _unit(config.target)
    data = data_factor(observed, config.data_factor)
    analysis = analyze(observed, config.bootstrap)
    known = equivalents(analysis, data, config.references, config.bootstrap) if data else None
    confounded = aliases(analysis)
    lines = sentences(analysis, confounded, known, target, unit)
    sections = [
        Section("short", "In short", [Sentences(lines)]),
        Section(
            "shares",
            "What explains the differences",
            [
                figures.shares(analysis, target),
                tables.shares(analysis, unit),
                tables.noise(analysis),
                tables.separation(confounded),
            ],
        ),
        Section(
            "curves",
            "Response curves",
            [*figures.curves(analysis, target, unit), tables.curves(analysis, unit)],
        ),
        Section(
            "interactions",
            "Interactions",
            [*figures.pairs(analysis, target, unit), tables.interactions(analysis)],
        ),
    ]
    if known is not None:
        blocks = [figures.equivalents(known), tables.equivalents(known)]
        sections.append(Section("data", "What is worth how much data", blocks))
    sections.append(Section("models", "The models", [tables.models(analysis, target, unit)]))
    method = Sentences(_method(analysis, config))
    sections.append(Section("method", "How it was computed", [method]))
    facts = [(str(len(observed.ids)), "models"), (str(len(observed.factors)), "factors that vary")]
    share = analysis.surface.share(*range(len(analysis.design.terms))).value
    facts.append((f"{100 * share:.0f}\u00a0%", "explained"))
    title = f"Factors of {target} in {name}"
    sections = [section for section in sections if section.blocks]
    return Tables(title, sections, _lead(observed, target), facts, {"": lines})


def _label(target: str) -> str:
    return shortened(printable(target.strip()), _MAX_TARGET)


def _unit(target: str) -> Unit:
    """Fractions are read in percent: accuracies, and measures that say so."""
    name = target.strip().partition("/")[0].removeprefix("measured.")
    if name in plugins("measure"):
        return unit_of(name)
    return "fraction" if name.isidentifier() and name.endswith("accuracy") else ""


def _lead(observed: Observed, target: str) -> str:
    reasons = [f"{count} {why}" for why, count in observed.left_out.items()]
    left_out = texts("left_out", reasons=listed(reasons)) if reasons else ""
    counts = {"models": len(observed.ids), "factors": len(observed.factors)}
    lead = texts("lead", target=target, stage=observed.stage, left_out=left_out, **counts)
    if observed.individual:
        lead += " " + texts("individual", names=list(observed.individual))
    return lead


def _method(analysis: Analysis, config: Factors) -> list[str]:
    observed, surface = analysis.observed, analysis.surface
    entered = sum(len(term.factors) == 2 for term in analysis.design.terms)
    interactions = texts(analysis.interactions_fitted, entered=entered, tried=len(analysis.tried))
    logarithmic = [factor.name for factor in analysis.factors if factor.is_log]
    scales = f"here: {listed(logarithmic)}" if logarithmic else texts("no_log")
    parents = texts("without_parents")
    if observed.parents is not None:
        freedom = {"parents": len(set(observed.parents)), "freedom": surface.parents_freedom}
        parents = texts("with_parents", **freedom)
    seeds = texts("without_replicates")
    if observed.replicates is not None:
        freedom = {"freedom": len(observed.ids) - len(set(observed.replicates.tolist()))}
        seeds = texts("with_replicates", seeds=list(observed.seeds), **freedom)
    values: Mapping[str, object] = {
        "interactions": interactions,
        "scales": scales,
        "parents": parents,
        "seeds": seeds,
        "level": 100 * config.confidence_level,
        "resamples": config.n_resamples,
        "seed": config.seed,
    }
    return texts.lines("method", **values)
