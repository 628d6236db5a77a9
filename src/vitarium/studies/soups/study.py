"""When models of a population may be averaged: soups, merges, alignment and barriers by kinship."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from vitarium.core.config import Config
from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import study
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.base import Findings
from vitarium.studies.report.figures import Figure
from vitarium.studies.report.page import Block, Figures, Page, Section, Sentences, Table
from vitarium.studies.report.text import counted, listed
from vitarium.studies.request import COLUMNS, Report, Request
from vitarium.studies.soups import figures as soup_figures
from vitarium.studies.soups import line_figures as soup_line_figures
from vitarium.studies.soups import tables as soup_tables
from vitarium.studies.soups.barriers import Lines, lines
from vitarium.studies.soups.estimates import Walks
from vitarium.studies.soups.groups import Kinfolk
from vitarium.studies.soups.results import Combining, Methods, Results
from vitarium.studies.soups.runs import SELECTION, Runs
from vitarium.studies.soups.sentences import Telling
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.population import Stage, population
from vitarium.zoo import Zoo


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
    draws: PositiveInt = 1000
    """Of the bootstrap."""
    level: float = Field(0.95, gt=0, lt=1)
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
class _Studied:
    """A stage, and what was computed of it."""

    stage: Stage
    results: Results
    lines: Lines
    walks: Walks
    telling: Telling

    @property
    def models(self) -> int:
        return sum(parent is not None for parent in self.stage.parents)


@study("soups", config=Soups)
def soups(
    config: Soups, zoo: Zoo, ids: Collection[str], request: Request, report: Report
) -> Findings:
    """Which models may be averaged, what soups and other merges gain, and where alignment helps."""
    methods = Methods(config.methods)
    if request.split == SELECTION:
        raise InvalidInput(
            f"the study of soups selects by the {SELECTION} images, and so cannot report on them; "
            "choose the split test"
        )
    device = find_devices(request.device)[0]
    sources = ModelLoader(zoo, data=None, device=device, data_dir=request.data_dir)
    known = population(zoo, ids, pd.DataFrame(columns=COLUMNS), request.split)
    bootstrap = Bootstrap(config.draws, config.level, config.seed)
    runs = Runs(sources, request.split, request.images)
    studied = []
    for stage in known.stages:
        kin = Kinfolk(sources, stage)
        if kin.families or kin.mixed:
            studied.append(_studied(config, stage, kin, runs, methods, bootstrap, report))
    if not studied:
        raise InvalidInput(
            f"{zoo.path}: no model has two finished children whose weights are kept and of one "
            "shape, and soups are made of the children of one parent"
        )
    return _findings(config, zoo.path.resolve().name, studied, methods, request.split, bootstrap)


def _studied(
    config: Soups,
    stage: Stage,
    kin: Kinfolk,
    runs: Runs,
    methods: Methods,
    bootstrap: Bootstrap,
    report: Report,
) -> _Studied:
    combining = Combining(
        runs, kin, methods, most=config.most_ingredients, last=config.last, report=report
    )
    results = combining.all()
    walked = lines(
        runs,
        kin,
        methods.aligning,
        pairs=config.pairs,
        aligned_pairs=config.aligned_pairs,
        points=config.points,
        images=config.barrier_images,
        seed=config.seed,
        report=report,
    )
    walks = Walks(stage, walked, bootstrap)
    telling = Telling(stage, results, walks, bootstrap, runs.split)
    return _Studied(stage, results, walked, walks, telling)


def _findings(
    config: Soups,
    name: str,
    studied: Sequence[_Studied],
    methods: Methods,
    split: str,
    bootstrap: Bootstrap,
) -> Findings:
    said = {one.stage.name: one.telling.headlines() for one in studied}
    details = {one.stage.name: one.telling.details() for one in studied}
    several = len(studied) > 1
    short = [
        f"**{stage}.** {line}" if several and place == 0 else line
        for stage, lines_ in said.items()
        for place, line in enumerate(lines_)
    ]
    sections = [Section("short", "In short", [Sentences(short)])]
    for one in studied:
        sections += _sections(one, details[one.stage.name], bootstrap, split, several)
    sections.append(_missing(studied))
    sections.append(_method(config, methods, split))
    page = Page(f"Soups of {name}", _lead(studied), sections, facts=_facts(studied))
    return Findings(page, {stage: [*said[stage], *details[stage]] for stage in said})


def _lead(studied: Sequence[_Studied]) -> str:
    said = []
    for one in studied:
        parents = len({parent for parent in one.stage.parents if parent})
        told = f"**{one.models}** models of {counted(parents, 'parent')}"
        said.append(f"{told} ({one.stage.name})" if len(studied) > 1 else told)
    return (
        f"When may one average models? {listed(said)}, combined in every way that is asked for, "
        "and what comes of it."
    )


def _facts(studied: Sequence[_Studied]) -> list[tuple[str, str]]:
    merged = sum(1 for one in studied for r in one.results.found if r.count > 1)
    merged += sum(1 for one in studied for r in one.results.curves if r.count > 1)
    merged += sum(len(one.results.epochs) for one in studied)
    return [
        (str(sum(one.models for one in studied)), "models"),
        (str(sum(len(one.results.groups("family", "mixed")) for one in studied)), "groups"),
        (str(merged), "combinations"),
        (str(sum(len(one.lines.found) for one in studied)), "paths between models"),
    ]


def _sections(
    one: _Studied, details: Sequence[str], bootstrap: Bootstrap, split: str, several: bool
) -> list[Section]:
    stage, results, walks = one.stage, one.results, one.walks
    own = [f.name for f in stage.groups if not f.name.startswith("parent")]
    by_group = "Every group of siblings"
    across = "Models of different parents: the best of each"
    parts: list[tuple[str, str, list[Figure | Table | Sentences | None]]] = [
        (
            "methods",
            "Methods",
            [
                soup_tables.directions(one.telling.directions()),
                soup_figures.methods(stage, results, bootstrap, split),
                Sentences(details),
                soup_tables.methods(results, bootstrap),
                soup_tables.groups(results, bootstrap, ("family", "mixed"), by_group),
                soup_tables.groups(results, bootstrap, ("across",), across),
                soup_tables.parts(results, bootstrap),
            ],
        ),
        (
            "ingredients",
            "How many ingredients",
            [soup_figures.ingredients(stage, results, split), soup_tables.ingredients(results)],
        ),
        (
            "epochs",
            "Averages of epochs",
            [
                soup_figures.epochs(stage, results.epochs, bootstrap),
                soup_tables.epochs(results, bootstrap),
            ],
        ),
        (
            "barriers",
            "Barriers and ancestry",
            [
                soup_line_figures.curves(stage, one.lines),
                *soup_line_figures.heat_maps(stage, one.lines),
                *(soup_line_figures.siblings(stage, walks, factor) for factor in own),
                soup_tables.kinship(walks),
            ],
        ),
        (
            "alignment",
            "Where alignment helps",
            [soup_line_figures.before_and_after(stage, one.lines), soup_tables.aligned(walks)],
        ),
    ]
    found = []
    for anchor, title, blocks in parts:
        there = _blocks([block for block in blocks if block is not None])
        if there:
            named = f"{title}: {stage.name}" if several else title
            found.append(Section(f"{anchor}-{stage.name}", named, there))
    return found


def _blocks(there: Sequence[Figure | Table | Sentences]) -> list[Block]:
    """Figures that follow each other are set together."""
    blocks: list[Block] = []
    figures: list[Figure] = []
    for each in there:
        if isinstance(each, Figure):
            figures.append(each)
            continue
        if figures:
            blocks.append(Figures(figures))
            figures = []
        if not isinstance(each, Sentences) or each.said:
            blocks.append(each)
    return [*blocks, Figures(figures)] if figures else blocks


def _missing(studied: Sequence[_Studied]) -> Section:
    tables = [soup_tables.absent(one.results, one.lines) for one in studied]
    there: list[Block] = [table for table in tables if table]
    nothing: list[Block] = [Sentences(["Nothing: every method could be tried on every group."])]
    return Section("missing", "What is missing", there or nothing)


def _method(config: Soups, methods: Methods, split: str) -> Section:
    aligning = listed([one.name for one in methods.aligning]) or "none"
    return Section(
        "method",
        "How it was computed",
        [
            Sentences(
                [
                    "Models after their last epoch. What is chosen, ordered or learned is so on "
                    f"the **{SELECTION}** images; all accuracies are of the **{split}** images. "
                    "What a parent was trained on does not count as seen by its children.",
                    "A group of siblings are the children of one parent, of the same data, whose "
                    "heads have one shape. Where heads have several shapes, all children of the "
                    "parent are one more group, whose heads are all kept.",
                    "Every method stands with its default settings, as `vitarium merge` has them; "
                    "nothing was tuned for this zoo. Methods that need what models started from "
                    "take the common parent with the head that the children started with; where "
                    "heads started differently, they are averaged.",
                    f"Alignments: {aligning}. All models of a group are rearranged to match the "
                    "first (in order of id), and then averaged.",
                    f"Barriers: the largest rise of the loss over {config.points} points of the "
                    "straight line above the line between its ends, on "
                    f"{config.barrier_images} {split} images; at most {config.pairs} pairs of each "
                    f"kinship, and {config.aligned_pairs} after each alignment.",
                    f"Intervals: {100 * config.level:g} %, percentiles of {config.draws} draws "
                    "with replacement: of test images where it is said so (the same draws for "
                    "models that are compared), else of models; of pairs, both models are drawn.",
                    "Nothing of it is added to the zoo: to keep a model, `vitarium merge` makes "
                    "it. What merged models say of the images is kept in the zoo's cache.",
                    f"Seed {config.seed}: the same zoo gives the same page.",
                ]
            )
        ],
    )
