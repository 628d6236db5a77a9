"""How diverse a population is, and why: the diversity section of a model zoo's paper."""

from collections.abc import Sequence

from pydantic import NonNegativeInt

from vitarium.core.numerals import counted
from vitarium.evaluation.embedding import Method, check_installed
from vitarium.studies.base import Population, Section, Sentences, Tables, study
from vitarium.studies.diversity import figures, tables
from vitarium.studies.diversity.measured import Unavailable, measured
from vitarium.studies.diversity.sentences import sentences
from vitarium.studies.report.matrices import heat_map
from vitarium.studies.report.tables import Block
from vitarium.studies.report.text import headed, number, title
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.analysis import MIN_MODELS, Analysis, analyze
from vitarium.studies.statistics.bootstrap import Resampled
from vitarium.studies.statistics.stages import Stages, heat_mapped, read_stages

texts = Texts("diversity", "page")


class Diversity(Resampled):
    """Settings of the diversity study."""

    hessian_models: NonNegativeInt = 0
    """Number of models per stage, the first in order of id, whose Hessian trace is measured; values
    already in the zoo are shown in any case. Takes from seconds to many minutes per model."""
    measure_missing: bool = True
    """Measure what is not in the zoo yet; otherwise the page says what is missing."""
    embeddings: tuple[Method, ...] = ("pca", "tsne")
    """Embeddings that place the models on a map: pca, tsne, and umap (needs the extra `umap`)."""


@study("diversity", title="Diversity", tiny={"n_resamples": 20, "embeddings": ["pca"]})
def diversity(config: Diversity, population: Population) -> Tables:
    """How models differ in accuracy, predictions, features and weights, and which factors matter.

    Stage by stage: what each generating factor explains, how alike models are by their kinship,
    maps and heat maps of the population, and sentences with confidence intervals. What is not
    measured yet is measured, and kept in the zoo.

    Examples:

      vitarium study diversity demo-zoo

      vitarium study diversity demo-zoo --figures figures --where "stage = 'finetune'"

      vitarium study diversity demo-zoo --hessian-models 30 --no-measure-missing
    """
    for method in config.embeddings:
        check_installed(method)
    values, unavailable = measured(
        population, hessian_models=config.hessian_models, measure_missing=config.measure_missing
    )
    stages = read_stages(population.zoo, population.ids, values, population.split)
    return tables_of(config, population, stages, unavailable)


def tables_of(
    config: Diversity,
    population: Population,
    stages: Stages,
    unavailable: Sequence[Unavailable] = (),
) -> Tables:
    """The tables of a population of which everything is measured."""
    analyses, bootstrap = [], config.bootstrap
    for done, stage in enumerate(stages.stages):
        population.progress.step(f"analyzing {stage.name}", done, len(stages.stages))
        analyses.append(analyze(stage, bootstrap))
    findings = {a.stage.name: sentences(a, bootstrap) for a in analyses}
    headlines = headed({stage: text.headlines for stage, text in findings.items()})
    sections = [
        Section("short", "In short", [Sentences(headlines)]),
        Section("zoo", "The zoo", [tables.stages(stages), figures.lineage(stages)]),
    ]
    for done, analysis in enumerate(analyses):
        name = analysis.stage.name
        population.progress.step(f"drawing {name}", done, len(analyses))
        sections.append(_stage(analysis, findings[name].details, config))
    settings = {"level": 100 * config.confidence_level, "resamples": config.n_resamples}
    method = texts.lines("method", split=population.split, seed=config.seed, **settings)
    sections.append(_missing(stages, unavailable))
    sections.append(Section("method", "How it was computed", [Sentences(method)]))
    parts = [f"**{len(stage)}** {stage.name}" for stage in stages.stages]
    lead = f"A population of {counted(len(stages), 'finished model')}: {', '.join(parts)}."
    if stages.left_out:
        left_out = [f"{count} {status}" for status, count in stages.left_out.items()]
        lead += f" Left out: {', '.join(left_out)}."
    factors = {factor.name for stage in stages.stages for factor in stage.factors}
    facts = [(str(len(stages)), "models"), (str(len(stages.stages)), "stages")]
    facts.append((str(len(factors)), "factors that vary"))
    accuracies = stages.accuracies.dropna()
    if len(accuracies):
        highest = number(float(accuracies.max()), "fraction")
        facts.append((f"{100 * accuracies.min():.1f} to {highest}", "accuracy"))
    lines = {stage: [*text.headlines, *text.details] for stage, text in findings.items()}
    return Tables(f"Diversity of {population.name}", sections, lead, facts, lines)


def _stage(analysis: Analysis, details: Sequence[str], config: Diversity) -> Section:
    stage, first, bootstrap = analysis.stage, analysis.main_factor, config.bootstrap
    # maps are colored at first by the factor that explains most of predictions
    of_pairs = (e for m in heat_mapped() for e in analysis.of(m))
    strongest = next((effect.factor.name for effect in of_pairs), first)
    variance = tables.variance(analysis)
    contents: list[Block | None] = [
        Sentences(details),
        figures.curves(stage, first),
        figures.against_accuracy(stage, "generalization_gap", first),
        figures.against_accuracy(stage, "hessian_trace", first),
        figures.variance(analysis, variance),
        variance,
        tables.mixed_models(analysis),
        figures.distributions(stage, first),
        tables.distributions(stage),
        *(heat_map(stage, measure) for measure in heat_mapped()),
        tables.kinship(analysis, bootstrap),
        tables.within_and_between(analysis, bootstrap),
        figures.embedding(stage, config.embeddings, strongest, config.seed),
        tables.models(stage),
    ]
    lead = f"{counted(len(stage), 'model')}."
    if individual := [factor.name for factor in stage.factors if factor.is_individual]:
        lead += " " + texts("individual", factors=", ".join(individual))
    if len(stage) < MIN_MODELS:
        lead += " " + texts("few_models")
    return Section(f"stage-{stage.name}", f"Stage: {stage.name}", contents, lead, stage.name)


def _missing(stages: Stages, unavailable: Sequence[Unavailable]) -> Section:
    table = tables.missing(stages, unavailable)
    lines = [f"{title(e.measure)}: `{e.command}`" for e in unavailable if e.command]
    if table.data.empty:
        lines = [texts("complete")]
    return Section("missing", "What is missing", [table, Sentences(lines)])
