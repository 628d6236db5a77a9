"""When models of a population may be averaged: soups, merges, alignment and barriers by kinship."""

from collections.abc import Iterator, Sequence

from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import counted
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.base import Population, Section, Sentences, Tables, study
from vitarium.studies.report.tables import Block
from vitarium.studies.report.text import headed
from vitarium.studies.report.texts import Texts
from vitarium.studies.soups import figures, tables
from vitarium.studies.soups.barriers import interpolate
from vitarium.studies.soups.evaluator import SELECTION, Evaluator
from vitarium.studies.soups.experiments import Experiments, methods_by_use
from vitarium.studies.soups.groups import SiblingGroups
from vitarium.studies.soups.sentences import StageSoups
from vitarium.studies.soups.settings import Soups
from vitarium.studies.statistics.stages import read_stages

texts = Texts("soups", "page")


@study(
    "soups",
    title="Soups",
    tiny={"methods": ["uniform_soup", "epoch_average"], "last": [2], "points": 3}
    | {"n_resamples": 20, "barrier_images": 32},
)
def soups(config: Soups, population: Population) -> Tables:
    """When models can be averaged: soups, merges, loss barriers by kinship, and alignment.

    For the children of each parent, and across parents: what soups, epoch averages and other merges
    gain over the best single model, how far the loss rises between models, and where rearranging
    them helps. Chosen by validation images, reported on test images, with confidence intervals.
    Merged models are not added to the zoo.

    Examples:

      vitarium study soups demo-zoo

      vitarium study soups demo-zoo --figures figures --where "stage = 'finetune'"

      vitarium study soups demo-zoo --methods uniform_soup,ties --pairs 50
    """
    methods, split = methods_by_use(config.methods), population.split
    if split == SELECTION:
        raise InvalidInput(
            f"the study of soups selects by the {SELECTION} images, and so cannot report on them; "
            "choose the split test"
        )
    zoo, ids = population.zoo, population.ids
    device = find_devices(population.device)[0]
    sources = ModelLoader(
        zoo,
        data=population.data,
        normalization=population.normalization,
        device=device,
        data_dir=population.data_dir,
    )
    evaluator = Evaluator(sources, split, population.num_images)
    stages = []
    for stage in read_stages(zoo, ids, split=split).stages:
        groups = SiblingGroups(sources, stage)
        if groups.families or groups.mixed:
            experiments = Experiments(config, evaluator, groups, methods)
            results = experiments.run(population.progress)
            barriers = interpolate(experiments, population.progress)
            stages.append(StageSoups(stage, results, barriers))
    if not stages:
        raise InvalidInput(
            f"{zoo.path}: no model has two finished children whose weights are kept and of one "
            "shape, and soups are made of the children of one parent"
        )
    several = len(stages) > 1
    sentences = {soup.stage.name: soup.headlines for soup in stages}
    short = headed(sentences) if several else stages[0].headlines
    failures = [f for soup in stages for f in (*soup.results.failures, *soup.barriers.failures)]
    missing = tables.failures(failures) if failures else Sentences([texts("complete")])
    settings = {"config": config, "level": 100 * config.confidence_level}
    aligning = [section.name for section in methods["align"]] or ["none"]
    split_names = {"selection": SELECTION, "split": split}
    method = texts.lines("method", alignments=aligning, **split_names, **settings)
    sections = [
        Section("short", "In short", [Sentences(short)]),
        *(section for soup in stages for section in _sections(soup, several)),
        Section("missing", "What is missing", [missing]),
        Section("method", "How it was computed", [Sentences(method)]),
    ]
    title = f"Soups of {population.name}"
    return Tables(title, sections, _lead(stages), _facts(stages), sentences)


def _lead(stages: Sequence[StageSoups]) -> str:
    parts = []
    for soup in stages:
        parents = len({parent for parent in soup.stage.parents if parent})
        models = f"**{soup.models}** models of {counted(parents, 'parent')}"
        parts.append(f"{models} ({soup.stage.name})" if len(stages) > 1 else models)
    return texts("lead", models=parts)


def _facts(stages: Sequence[StageSoups]) -> list[tuple[str, str]]:
    counts = {
        "models": sum(soup.models for soup in stages),
        "groups": sum(len(soup.results.groups("family", "mixed")) for soup in stages),
        "combinations": sum(soup.results.combinations for soup in stages),
        "paths between models": sum(len(soup.barriers.paths) for soup in stages),
    }
    return [(str(count), name) for name, count in counts.items()]


def _sections(soup: StageSoups, several: bool) -> Iterator[Section]:
    """The tables and figures of a stage; sections without any are left out."""
    stage, results, barriers = soup.stage.name, soup.results, soup.barriers
    methods = [figures.methods(stage, results), tables.methods(results)]
    groups = [
        tables.groups(results, ("family", "mixed"), "siblings"),
        tables.groups(results, ("across",), "across"),
    ]
    siblings = [figures.siblings(barriers, factor) for factor in barriers.factors]
    maps = [*figures.heat_maps(barriers), *siblings, tables.kinship(barriers)]
    aligned = [figures.before_and_after(barriers), tables.aligned(barriers)]
    count = [figures.ingredients(stage, results), tables.ingredients(results)]
    epochs = [figures.epochs(stage, results), tables.epochs(results)]
    contents: list[tuple[str, str, Sequence[Block | None]]] = [
        ("methods", "Methods", [soup.directions(), *methods, *groups, tables.parts(results)]),
        ("ingredients", "How many ingredients", count),
        ("epochs", "Averages of epochs", epochs),
        ("barriers", "Barriers and ancestry", [figures.barrier_curves(barriers), *maps]),
        ("alignment", "Where alignment helps", aligned),
    ]
    suffix = f": {stage}" if several else ""
    for anchor, title, blocks in contents:
        section = Section(f"{anchor}-{stage}", f"{title}{suffix}", blocks, stage=stage)
        if section.blocks:
            yield section
