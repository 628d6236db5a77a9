"""When models of a population may be averaged: soups, merges, alignment and barriers by kinship."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from vitarium.core.config import Config
from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.base import Population, Progress, Section, Sentences, Tables, study
from vitarium.studies.report.tables import Block
from vitarium.studies.report.text import counted, listed
from vitarium.studies.soups import barrier_figures, figures, tables
from vitarium.studies.soups.barriers import InterpolationPaths, interpolation_paths
from vitarium.studies.soups.estimates import BarrierEstimates
from vitarium.studies.soups.evaluator import SELECTION, Evaluator
from vitarium.studies.soups.experiments import MergeExperiments, MergeResults, Methods
from vitarium.studies.soups.groups import SiblingGroups
from vitarium.studies.soups.sentences import SoupSentences
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.stages import Stage, read_stages


class Soups(Config):
    """Settings of the study of soups."""

    methods: tuple[str, ...] = (
        "uniform_soup",
        "greedy_soup",
        "learned_soup",
        "model_stock",
        "task_arithmetic",
        "ties",
        "dare",
        "drm",
        "wise_ft",
        "epoch_average",
        "weight_matching",
        "orthogonal_matching",
    )
    """Operators, with their defaults: those that combine models, one model with what it started
    from, or epochs of one model; and those that align, before uniform and greedy soups."""
    last: tuple[PositiveInt, ...] = (2, 3, 5)
    """How many of a model's last epochs are averaged."""
    most_ingredients: PositiveInt = 16
    """Models of a group up to which soups of the best 1, 2, ... are made."""
    pairs: PositiveInt = 150
    """Of models between which barriers are measured: at most so many of each kinship, drawn in an
    order that does not depend on anything else."""
    aligned_pairs: NonNegativeInt = 12
    """So many of these also after each alignment."""
    points: int = Field(11, ge=3)
    """Models on the way between two, both ends among them; odd, for the one halfway."""
    barrier_images: PositiveInt = 512
    """At most so many images for each barrier."""
    n_resamples: PositiveInt = 1000
    """Of the bootstrap."""
    confidence_level: float = Field(0.95, gt=0, lt=1)
    """Of confidence intervals."""
    seed: int = 0
    """Of the bootstrap, and of which pairs are drawn."""

    @field_validator("points")
    @classmethod
    def _has_a_middle(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(f"{points} is even: without a point halfway")
        return points


@dataclass(frozen=True)
class StageSoups:
    """A stage, and what was computed of it."""

    stage: Stage
    results: MergeResults
    paths: InterpolationPaths
    estimates: BarrierEstimates
    sentences: SoupSentences

    @property
    def models(self) -> int:
        return sum(parent is not None for parent in self.stage.parents)


@study(
    "soups",
    title="Soups",
    config=Soups,
    tiny={
        "methods": ["uniform_soup", "epoch_average"],
        "last": [2],
        "points": 3,
        "n_resamples": 20,
        "barrier_images": 32,
    },
)
def soups(config: Soups, population: Population) -> Tables:
    """When models may be averaged: soups, merges, barriers by kinship, and alignment.

    For the children of each parent, and across parents: what soups, epoch averages and other merges
    gain over the best single model, how far the loss rises between models, and where rearranging
    them helps. Chosen by validation images, reported on test images, with confidence intervals.
    Merged models are not added to the zoo.

    Examples:

      vitarium study soups demo-zoo --out soups.html

      vitarium study soups demo-zoo --figures figures --where "stage = 'finetune'"

      vitarium study soups demo-zoo --methods uniform_soup,ties --pairs 50
    """
    methods = Methods(config.methods)
    if population.split == SELECTION:
        raise InvalidInput(
            f"the study of soups selects by the {SELECTION} images, and so cannot report on them; "
            "choose the split test"
        )
    zoo, ids = population.zoo, population.ids
    device = find_devices(population.device)[0]
    sources = ModelLoader(zoo, data=None, device=device, data_dir=population.data_dir)
    bootstrap = Bootstrap(config.n_resamples, config.confidence_level, config.seed)
    evaluator = Evaluator(sources, population.split, population.num_images)
    stages = []
    for stage in read_stages(zoo, ids, split=population.split).stages:
        groups = SiblingGroups(sources, stage)
        if groups.families or groups.mixed:
            stages.append(
                _stage_soups(config, groups, evaluator, methods, bootstrap, population.progress)
            )
    if not stages:
        raise InvalidInput(
            f"{zoo.path}: no model has two finished children whose weights are kept and of one "
            "shape, and soups are made of the children of one parent"
        )
    return _tables(config, population, stages, methods, bootstrap)


def _stage_soups(
    config: Soups,
    groups: SiblingGroups,
    evaluator: Evaluator,
    methods: Methods,
    bootstrap: Bootstrap,
    progress: Progress,
) -> StageSoups:
    results = MergeExperiments(
        evaluator,
        groups,
        methods,
        max_ingredients=config.most_ingredients,
        last=config.last,
        progress=progress,
    ).run()
    paths = interpolation_paths(evaluator, groups, methods.aligning, config, progress)
    estimates = BarrierEstimates(groups.stage, paths, bootstrap)
    sentences = SoupSentences(groups.stage, results, estimates, bootstrap, evaluator.split)
    return StageSoups(groups.stage, results, paths, estimates, sentences)


def _tables(
    config: Soups,
    population: Population,
    stages: Sequence[StageSoups],
    methods: Methods,
    bootstrap: Bootstrap,
) -> Tables:
    split = population.split
    headlines = {soup.stage.name: soup.sentences.headlines() for soup in stages}
    details = {soup.stage.name: soup.sentences.details() for soup in stages}
    several = len(stages) > 1
    short = [
        f"**{stage}.** {line}" if several and number == 0 else line
        for stage, lines in headlines.items()
        for number, line in enumerate(lines)
    ]
    sections = [Section("short", "In short", [Sentences(short)])]
    for soup in stages:
        sections += _sections(soup, details[soup.stage.name], bootstrap, split, several)
    failures = [tables.failures(soup.results, soup.paths) for soup in stages]
    nothing = "Nothing: every method could be tried on every group."
    missing = Section("missing", "What is missing", failures)
    if not missing.blocks:
        missing = Section("missing", "What is missing", [Sentences([nothing])])
    sections += [missing, _methods(config, methods, split)]
    return Tables(
        f"Soups of {population.name}",
        sections,
        _lead(stages),
        _facts(stages),
        {stage: [*headlines[stage], *details[stage]] for stage in headlines},
    )


def _lead(stages: Sequence[StageSoups]) -> str:
    parts = []
    for soup in stages:
        parents = len({parent for parent in soup.stage.parents if parent})
        models = f"**{soup.models}** models of {counted(parents, 'parent')}"
        parts.append(f"{models} ({soup.stage.name})" if len(stages) > 1 else models)
    return (
        f"When may one average models? {listed(parts)}, combined in every way that is asked for, "
        "and what comes of it."
    )


def _facts(stages: Sequence[StageSoups]) -> list[tuple[str, str]]:
    merged = sum(
        sum(result.count > 1 for result in (*soup.results.results, *soup.results.curves))
        + len(soup.results.epochs)
        for soup in stages
    )
    return [
        (str(sum(soup.models for soup in stages)), "models"),
        (str(sum(len(soup.results.groups("family", "mixed")) for soup in stages)), "groups"),
        (str(merged), "combinations"),
        (str(sum(len(soup.paths.paths) for soup in stages)), "paths between models"),
    ]


def _sections(
    soup: StageSoups, details: Sequence[str], bootstrap: Bootstrap, split: str, several: bool
) -> list[Section]:
    stage, results, estimates, paths = soup.stage, soup.results, soup.estimates, soup.paths
    factors = [factor for factor in stage.groups if not factor.name.startswith("parent")]
    siblings = "Every group of siblings"
    across = "Models of different parents: the best of each"
    contents: dict[tuple[str, str], list[Block | None]] = {
        ("methods", "Methods"): [
            tables.directions(soup.sentences.directions()),
            figures.methods(stage, results, bootstrap, split),
            Sentences(details),
            tables.methods(results, bootstrap),
            tables.groups(results, bootstrap, ("family", "mixed"), siblings),
            tables.groups(results, bootstrap, ("across",), across),
            tables.parts(results, bootstrap),
        ],
        ("ingredients", "How many ingredients"): [
            figures.ingredients(stage, results, split),
            tables.ingredients(results),
        ],
        ("epochs", "Averages of epochs"): [
            figures.epochs(stage, results, bootstrap),
            tables.epochs(results, bootstrap),
        ],
        ("barriers", "Barriers and ancestry"): [
            barrier_figures.curves(stage, paths),
            *barrier_figures.heat_maps(stage, paths),
            *(barrier_figures.siblings(stage, estimates, factor) for factor in factors),
            tables.kinship(estimates),
        ],
        ("alignment", "Where alignment helps"): [
            barrier_figures.before_and_after(stage, paths),
            tables.aligned(estimates),
        ],
    }
    suffix = f": {stage.name}" if several else ""
    sections = [
        Section(f"{anchor}-{stage.name}", f"{title}{suffix}", blocks, stage=stage.name)
        for (anchor, title), blocks in contents.items()
    ]
    return [section for section in sections if section.blocks]


def _methods(config: Soups, methods: Methods, split: str) -> Section:
    aligning = listed([section.name for section in methods.aligning]) or "none"
    lines = [
        f"Models after their last epoch. What is chosen, ordered or learned is so on the "
        f"**{SELECTION}** images; all accuracies are of the **{split}** images. What a parent was "
        "trained on does not count as seen by its children.",
        "A group of siblings are the children of one parent, of the same data, whose heads have "
        "one shape. Where heads have several shapes, all children of the parent are one more "
        "group, whose heads are all kept.",
        "Every method stands with its default settings, as `vitarium merge` has them; nothing was "
        "tuned for this zoo. Methods that need what models started from take the common parent "
        "with the head that the children started with; where heads started differently, they are "
        "averaged.",
        f"Alignments: {aligning}. All models of a group are rearranged to match the first (in "
        "order of id), and then averaged.",
        f"Barriers: the largest rise of the loss over {config.points} points of the straight line "
        f"above the line between its ends, on {config.barrier_images} {split} images; at most "
        f"{config.pairs} pairs of each kinship, and {config.aligned_pairs} after each alignment.",
        f"Intervals: {100 * config.confidence_level:g} %, percentiles of {config.n_resamples} "
        "draws with replacement: of test images where it is said so (the same draws for models "
        "that are compared), else of models; of pairs, both models are drawn.",
        "Nothing of it is added to the zoo: to keep a model, `vitarium merge` makes it. What "
        "merged models say of the images is kept in the zoo's cache.",
        f"Seed {config.seed}: the same zoo gives the same page.",
    ]
    return Section("method", "How it was computed", [Sentences(lines)])
