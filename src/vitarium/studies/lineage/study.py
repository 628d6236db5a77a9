"""Which models descend from which, recovered from their weights: a forest, and what it is worth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from vitarium.core.config import Config
from vitarium.core.registry import Plugin, choose, get, study
from vitarium.core.registry import Section as Chosen
from vitarium.lineage.recover import Recovered, recover
from vitarium.studies.base import Findings
from vitarium.studies.lineage import figures as forest_figure
from vitarium.studies.lineage import scores as forest_scores
from vitarium.studies.lineage import tables as forest_tables
from vitarium.studies.lineage.rows import Judged, judged, true_forest
from vitarium.studies.lineage.sentences import sentences, takes_roots
from vitarium.studies.report.figures import Figure
from vitarium.studies.report.page import Block, Figures, Page, Section, Sentences
from vitarium.studies.report.text import counted
from vitarium.studies.request import Report
from vitarium.zoo import Zoo


class Lineage(Config):
    """Settings of the study of lineage."""

    method: str = "descent"
    """What recovers it, see `vitarium plugins lineages`."""
    settings: dict[str, Any] = {}
    """Of the method."""
    trees: PositiveInt | Literal["auto"] = "auto"
    """How many there are; auto: the method finds out."""
    compare: tuple[str, ...] = ("mother", "nearest_root", "atlas")
    """Methods whose forests are shown beside it, with their defaults."""
    truth: bool | None = None
    """Whether the forest is held against the true one; none: where that is known."""
    epochs: Literal["last", "all"] = "last"
    """Of a zoo, models after their last epoch, or every kept epoch as a model of its own."""


@dataclass(frozen=True)
class LineageFindings(Findings):
    """With the forest, to be written or drawn otherwise."""

    recovered: Recovered

    @property
    def forest(self) -> Judged:
        """Of the method that was asked for, beside the truth where that is known."""
        return next(iter(judged(self.recovered).values()))


@study("lineage", config=Lineage, of="weights")
def lineage(
    config: Lineage, source: Zoo | str | Path, where: str, report: Report
) -> LineageFindings:
    """Which models descend from which, recovered from their weights; of a zoo or plain files."""
    method = choose("lineage", config.method, **config.settings)
    others = [get("lineage", name) for name in config.compare if name != method.name]
    trees = None if config.trees == "auto" else config.trees
    found = recover(
        source,
        method,
        trees=trees,
        compare=[other.name for other in others],
        truth=config.truth,
        where=where,
        epochs=config.epochs,
        report=report,
    )
    path = source.path if isinstance(source, Zoo) else Path(source)
    forests = judged(found)
    said = sentences(
        found, forests, told_trees=trees is not None, asked_truth=config.truth is not False
    )
    page = Page(
        f"Lineage of {path.resolve().name}",
        _lead(found),
        [
            *_sections(found, forests, said),
            _method(config, method, others, found.truth is not None),
        ],
        facts=_facts(found, forests),
    )
    return LineageFindings(page, {"": said}, found)


def _lead(found: Recovered) -> str:
    known = " Held against the truth, which no method sees." if found.truth is not None else ""
    return (
        f"Which of **{counted(len(found.forest.models), 'model')}** descends from which? What "
        f"their weights tell, and how sure that is.{known}"
    )


def _facts(found: Recovered, forests: dict[str, Judged]) -> list[tuple[str, str]]:
    forest = found.forest
    facts = [
        (f"{len(forest.models):,}", "models"),
        (f"{len(forest.trees):,}", "trees"),
        (f"{len(forest.edges):,}", "edges"),
    ]
    for name, title in (
        ("node_accuracy", "models with right parents"),
        ("adjusted_rand_index", "adjusted Rand index of the trees"),
    ):
        value = forest_scores.value(found.scores, name)
        if value is not None:
            told = forest_scores.percent(value) if name == "node_accuracy" else f"{value:.3f}"
            facts.append((told, title))
    return facts


def _sections(found: Recovered, forests: dict[str, Judged], said: Sequence[str]) -> list[Section]:
    first = forests[found.forest.method]
    drawn = dict(forests)
    if true := true_forest(found, forest_figure.TRUE_FOREST):
        drawn[forest_figure.TRUE_FOREST] = true
    bins = forest_scores.bins(first)
    calibrated = forest_scores.calibration(bins)
    compared: list[Block | None] = [
        _drawn(forest_scores.figure(found)),
        forest_scores.comparison(found, forests) if len(forests) > 1 or found.scores else None,
    ]
    sure: list[Block | None] = [forest_tables.mistakes(first), forest_tables.doubtful(first)]
    if calibrated:
        sure += [Figures([calibrated[0]]), calibrated[1]]
    parts: list[tuple[str, str, Sequence[Block | None]]] = [
        ("short", "In short", [Sentences(said)]),
        ("tree", "The forest", [_drawn(forest_figure.tree(drawn, found.info))]),
        ("methods", "Methods", compared),
        ("doubts", "Doubts" if found.truth is None else "Doubts and mistakes", sure),
        ("models", "All models", [forest_tables.edges(first)]),
        (
            "compared",
            "What was compared",
            [forest_tables.groups(found), forest_tables.left_out(found.left_out)],
        ),
    ]
    sections = []
    for anchor, title, blocks in parts:
        if there := [block for block in blocks if block is not None]:
            sections.append(Section(anchor, title, there))
    return sections


def _drawn(figure: Figure | None) -> Figures | None:
    return Figures([figure]) if figure else None


def _method(config: Lineage, method: Chosen, others: Sequence[Plugin], known: bool) -> Section:
    plugin = method.plugin
    settings = {k: v for k, v in method.factors().items() if k != "name"}
    told = ", ".join(
        f"`{name}` {'none' if value in (None, []) else json.dumps(value)}"
        for name, value in settings.items()
    )
    said = [
        f"`{method.name}`: {_told(plugin)}" + (f" Settings: {told}." if told else ""),
        f"Trees: {config.trees}. Epochs: {config.epochs}.",
        *(
            f"Beside it, with default settings, `{other.name}`: {_told(other)}"
            + (" It was told the true roots." if known and takes_roots(other.name) else "")
            for other in others
        ),
        "Methods see weights and nothing else: no names, no order, no dates, no accuracies. Heads "
        "are left out. Two models whose weights are the same are tied, and said to be so.",
        "A confidence is how probable it is, as the method sees it, that an edge is right. Of a "
        "mixture, the lowest of its edges' stands in the figure.",
        "The truth, where it is known, comes of the zoo's recipes or of a table beside the files; "
        "it is only looked at for scores, and by baselines that must be told the roots. A model "
        "whose true parent is not here descends from the nearest ancestor that is.",
        "The same models give the same page.",
    ]
    return Section("method", "How it was computed", [Sentences(said)])


def _told(plugin: Plugin) -> str:
    paper = plugin.facts.get("paper")
    return plugin.summary.removesuffix(".") + (f" ({paper})." if paper else ".")
