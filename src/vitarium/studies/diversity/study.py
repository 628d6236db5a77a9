"""How diverse a population is, and why: the diversity section of a model zoo's paper."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import Field, NonNegativeInt, PositiveInt

from vitarium.core.config import Config
from vitarium.core.registry import study
from vitarium.studies.base import Findings
from vitarium.studies.diversity import figures as model_figures
from vitarium.studies.diversity import tables
from vitarium.studies.diversity.sentences import Said, sentences
from vitarium.studies.report import pair_figures
from vitarium.studies.report import trees as lineage_figure
from vitarium.studies.report.page import Block, Figures, Page, Section, Sentences, Table
from vitarium.studies.report.text import counted, number, title
from vitarium.studies.request import Gathered, Report, Request, gather
from vitarium.studies.statistics.analysis import Analysis, analyse
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.embedding import Method, check_installed
from vitarium.studies.statistics.population import Population, Stage, population
from vitarium.zoo import Zoo


class Diversity(Config):
    """Settings of the diversity study."""

    hessian_models: NonNegativeInt = 0
    """Measure the Hessian trace of so many models per stage, the first in order of id; what is
    known already is shown in any case. It takes some seconds to many minutes per model."""
    measure_missing: bool = True
    """Measure what is not known yet; otherwise the page says what is missing."""
    embeddings: tuple[Method, ...] = ("pca", "tsne")
    """How models are placed on a map: pca, tsne, and umap (needs vitarium[umap])."""
    draws: PositiveInt = 1000
    """Of the bootstrap."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of confidence intervals."""
    seed: int = 0
    """Of the bootstrap, of permutations and of maps."""


@study("diversity", config=Diversity)
def diversity(
    config: Diversity, zoo: Zoo, ids: Collection[str], request: Request, report: Report
) -> Findings:
    """How different models are in accuracy, predictions, features and weights, and why."""
    for method in config.embeddings:
        check_installed(method)
    gathered = gather(
        zoo,
        ids,
        request,
        hessian_models=config.hessian_models,
        measure_missing=config.measure_missing,
        report=report,
    )
    known = population(zoo, ids, gathered.measured, request.split)
    return findings(config, zoo.path.resolve().name, known, gathered, report)


def findings(
    config: Diversity,
    name: str,
    known: Population,
    gathered: Gathered,
    report: Report = lambda what, done, of: None,
) -> Findings:
    """The page of a population of which everything is gathered."""
    bootstrap = Bootstrap(config.draws, config.level, config.seed)
    analyses = []
    for done, stage in enumerate(known.stages):
        report(f"analysing {stage.name}", done, len(known.stages))
        analyses.append(analyse(stage, bootstrap))
    said = {a.stage.name: sentences(a, bootstrap) for a in analyses}
    sections = [
        Section("short", "In short", [_in_short(said)]),
        Section("zoo", "The zoo", _zoo(known)),
    ]
    for done, analysis in enumerate(analyses):
        report(f"drawing {analysis.stage.name}", done, len(analyses))
        details = said[analysis.stage.name].details
        sections.append(_stage(analysis, details, config, bootstrap))
    lines = {stage: [*each.headlines, *each.details] for stage, each in said.items()}
    sections.append(_missing(known, gathered))
    sections.append(_method(config, gathered))
    return Findings(
        Page(f"Diversity of {name}", _lead(known), sections, facts=_facts(known)), lines
    )


def _lead(known: Population) -> str:
    parts = [f"**{len(stage)}** {stage.name}" for stage in known.stages]
    left = [f"{count} {status}" for status, count in known.left_out.items()]
    return f"A population of {counted(len(known), 'finished model')}: {', '.join(parts)}." + (
        f" Left out: {', '.join(left)}." if left else ""
    )


def _facts(known: Population) -> list[tuple[str, str]]:
    factors = {factor.name for stage in known.stages for factor in stage.factors}
    accuracies = known.accuracies.dropna()
    facts = [
        (str(len(known)), "models"),
        (str(len(known.stages)), "stages"),
        (str(len(factors)), "factors that vary"),
    ]
    if len(accuracies):
        facts.append(
            (
                f"{100 * accuracies.min():.1f} to {number(float(accuracies.max()), 'accuracy')}",
                "accuracy",
            )
        )
    return facts


def _in_short(said: Mapping[str, Said]) -> Sentences:
    lines = []
    for stage, each in said.items():
        first, *rest = each.headlines
        lines += [f"**{stage}.** {first}", *rest]
    return Sentences(lines)


def _zoo(known: Population) -> list[Block]:
    blocks: list[Block] = [tables.stages(known)]
    if tree := lineage_figure.lineage(known):
        blocks.append(Figures([tree]))
    return blocks


def _stage(
    analysis: Analysis, details: Sequence[str], config: Diversity, bootstrap: Bootstrap
) -> Section:
    stage, first = analysis.stage, analysis.telling
    blocks: list[Block] = [Sentences(details)] if details else []
    for figures in (
        [
            model_figures.curves(stage, first),
            model_figures.against_accuracy(stage, "generalization_gap", first),
            model_figures.against_accuracy(stage, "hessian_trace", first),
        ],
        [model_figures.variance(analysis)],
        [tables.variance(analysis), tables.mixed_models(analysis)],
        [model_figures.distributions(stage, first)],
        [tables.distributions(stage)],
        [pair_figures.heat_map(stage, measure) for measure in pair_figures.MAPS],
        [tables.kinship(analysis, bootstrap), tables.within_and_between(analysis, bootstrap)],
        [pair_figures.embedding(stage, config.embeddings, _of_variety(analysis), config.seed)],
        [tables.models(stage)],
    ):
        there = [each for each in figures if each is not None]
        drawn = [each for each in there if not isinstance(each, Table)]
        blocks += [Figures(drawn)] if drawn else []
        blocks += [each for each in there if isinstance(each, Table)]
    return Section(f"stage-{stage.name}", f"Stage: {stage.name}", blocks, _of_stage(stage))


def _of_variety(analysis: Analysis) -> str | None:
    """The factor that explains most of predictions, by which maps are coloured at first."""
    for measure in ("agreement", "cka", "weight_l2"):
        if there := analysis.of(measure):
            return there[0].factor.name
    return analysis.telling


def _of_stage(stage: Stage) -> str:
    own = [factor.name for factor in stage.factors if factor.is_own]
    said = [f"{counted(len(stage), 'model')}."]
    if own:
        said.append(
            f"Of {', '.join(own)} (almost) every model has its own value: no groups are made of it."
        )
    if len(stage) < 4:
        said.append("Too few models to ask what explains their differences.")
    return " ".join(said)


def _missing(known: Population, gathered: Gathered) -> Section:
    rows = [
        [
            stage.name,
            title(missing.measure),
            f"{missing.have} of {missing.of} {'pairs' if missing.pairs else 'models'}",
            missing.why or "not measured",
        ]
        for stage in known.stages
        for missing in stage.missing
    ]
    rows += [["all", title(absent.measure), "none", absent.why] for absent in gathered.absent]
    if not rows:
        return Section(
            "missing",
            "What is missing",
            [Sentences(["Nothing: every measure has a value for every model and pair."])],
        )
    table = Table(
        "Measures without a value", ["stage", "measure", "has values for", "why"], rows, wrap=True
    )
    hints = [f"{title(a.measure)}: `{a.command}`" for a in gathered.absent if a.command]
    return Section("missing", "What is missing", [table, *([Sentences(hints)] if hints else [])])


def _method(config: Diversity, gathered: Gathered) -> Section:
    level = f"{100 * config.level:g} %"
    return Section(
        "method",
        "How it was computed",
        [
            Sentences(
                [
                    f"Models after their last epoch, on the split **{gathered.split}**.",
                    f"Intervals: {level}, percentiles of {config.draws} draws of models with "
                    "replacement; of pairs, both models are drawn, and no model is compared with "
                    "its copy. They are about models grown as these were, of these parents; where "
                    "ancestries of four or more parents each are compared, whole families are "
                    "drawn, and the interval is about other parents, too.",
                    "η² of pairs is Anderson's (2001): 1 less the squared distances within groups "
                    "over all. Squared distances: 1 less agreement, the Jensen-Shannon divergence, "
                    "1 less CKA, the square of the weights' L2 distance, and 1 less cosine.",
                    "p: permutation test with 999 shuffles, times the number of factors tried; the "
                    "labels of parents are shuffled between parents.",
                    "Factors are tried one by one: where two go together (an optimizer and its "
                    "learning rates), both explain what they share.",
                    f"Seed {config.seed}: the same zoo gives the same page.",
                ]
            )
        ],
    )
