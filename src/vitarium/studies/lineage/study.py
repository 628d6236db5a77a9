"""Which models descend from which, recovered from their weights: a forest, and what it is worth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from vitarium.core.config import Config
from vitarium.core.numerals import counted
from vitarium.core.registry import Plugin, choose, get
from vitarium.core.registry import Section as Choice
from vitarium.lineage.files.forests import write_graphml, write_json
from vitarium.lineage.recover import Recovered, recover
from vitarium.studies.base import Population, Section, Sentences, Tables, study
from vitarium.studies.lineage import figures, tables
from vitarium.studies.lineage.evaluated import Forests, evaluated_forests, true_forest
from vitarium.studies.lineage.sentences import forest_lines, sentences, takes_roots
from vitarium.studies.report.text import number
from vitarium.studies.report.texts import Texts

texts = Texts("lineage", "page")


class Lineage(Config):
    """Settings of the study of lineage."""

    method: str = "descent"
    """Method that recovers the lineage; `vitarium plugins lineage` lists all."""
    settings: dict[str, Any] = {}
    """Settings of the method."""
    trees: PositiveInt | Literal["auto"] = "auto"
    """Number of trees; auto: inferred by the method."""
    compare: tuple[str, ...] = ("mother", "nearest_root", "atlas")
    """Methods to compare with, with their default settings."""
    truth: bool | None = None
    """Compare the recovered forest with the true one; none: if the true one is known."""
    epochs: Literal["last", "all"] = "last"
    """With a zoo: each model after its last epoch, or every kept epoch as a model of its own."""


@dataclass(frozen=True, eq=False)
class LineageTables(Tables):
    """With the forests, to be written or drawn otherwise."""

    recovered: Recovered = field(kw_only=True)


def as_json(lineage: LineageTables, path: Path) -> None:
    """Write the forest as JSON, too."""
    result = lineage.recovered
    write_json(result.forest, path, truth=result.truth, scores=result.scores, info=result.info)


def as_graphml(lineage: LineageTables, path: Path) -> None:
    """Write the forest as GraphML, for Gephi, yEd or networkx."""
    recovered = lineage.recovered
    write_graphml(recovered.forest, path, truth=recovered.truth, info=recovered.info)


@study(
    "lineage",
    title="Lineage",
    of="weights",
    exports={"json": as_json, "graphml": as_graphml},
    tiny={"compare": []},
)
def lineage(config: Lineage, population: Population) -> LineageTables:
    """Which models descend from which, recovered from their weights alone.

    Takes a zoo, or any folder with .safetensors files or pickled state dicts (no code in them is
    run). The page shows the forest, a confidence for each edge, and what other methods recover. If
    the true lineage is known, from a zoo, lineage.csv (columns model, parent) or an export's
    models.csv, the forest is scored; methods never see it. Settings of the method are given by
    --set, see `vitarium plugins lineage descent`.

    Examples:

      vitarium study lineage demo-zoo

      vitarium study lineage downloads --trees 3 --json forest.json --graphml forest.graphml

      vitarium study lineage demo-zoo --method mother --compare none --where "stage = 'finetune'"
    """
    method = choose("lineage", config.method, **config.settings)
    baselines = [get("lineage", name) for name in config.compare if name != method.name]
    trees = None if config.trees == "auto" else config.trees
    recovered = recover(
        population.source,
        method,
        trees=trees,
        compare=[baseline.name for baseline in baselines],
        truth=config.truth,
        models=population.models,
        where=population.where,
        epochs=config.epochs,
        progress=population.progress,
    )
    forests = evaluated_forests(recovered)
    first = next(iter(forests.values()))
    options = {"given_trees": trees is not None, "wants_truth": config.truth is not False}
    lines = sentences(recovered, forests, **options)
    has_truth = recovered.truth is not None
    truth = texts("lead_truth") if has_truth else ""
    forest = recovered.forest
    counts = {"models": forest.models, "trees": forest.trees, "edges": forest.edges}
    facts = [(f"{len(what):,}", name) for name, what in counts.items()]
    accuracy = first.score("node_accuracy")
    if accuracy is not None:
        facts.append((number(accuracy, "sure"), "models with right parents"))
    if accuracy is not None and first.true_trees:
        recovered_trees = f"{first.num_whole_trees} of {len(first.true_trees)}"
        facts.append((recovered_trees, "true trees recovered with exactly their models"))
    sections = _sections(recovered, forests, lines)
    return LineageTables(
        f"Lineage of {population.name}",
        [*sections, _methods(config, method, baselines, recovered.knows_all_parents)],
        texts("lead", models=counted(len(forest.models), "model"), truth=truth),
        facts,
        {"": lines},
        ["", *forest_lines(first)],
        recovered=recovered,
    )


def _sections(recovered: Recovered, forests: Forests, lines: Sequence[str]) -> list[Section]:
    first = next(iter(forests.values()))
    true = true_forest(recovered, figures.TRUE_FOREST)
    drawn = {**forests, figures.TRUE_FOREST: true} if true else forests
    calibration = tables.calibration(first)
    doubts = [tables.mistakes(first), tables.doubtful(first)]
    calibrated = [figures.calibration(calibration), calibration]
    compared = [tables.groups(recovered), tables.left_out(recovered.left_out)]
    sections = [
        Section("short", "In short", [Sentences(lines)]),
        Section("tree", "The forest", [figures.tree(drawn, recovered.info)]),
        Section("methods", "Methods", [figures.scores(forests), tables.comparison(forests)]),
        Section("doubts", "Doubts and mistakes" if true else "Doubts", [*doubts, *calibrated]),
        Section("models", "All models", [tables.edges(first)]),
        Section("compared", "What was compared", compared),
    ]
    return [section for section in sections if section.blocks]


def _methods(
    config: Lineage, method: Choice, baselines: Sequence[Plugin], roots_known: bool
) -> Section:
    def about(plugin: Plugin) -> str:
        paper = plugin.facts.get("paper")
        text = plugin.summary.removesuffix(".") + (f" ({paper})." if paper else ".")
        return f"`{plugin.name}`: {text}"

    settings = ", ".join(
        f"`{name}` {'none' if value in (None, []) else json.dumps(value)}"
        for name, value in method.factors().items()
        if name != "name"
    )
    lines = [about(method.plugin) + (f" Settings: {settings}." if settings else "")]
    lines.append(f"Trees: {config.trees}. Epochs: {config.epochs}.")
    for baseline in baselines:
        has_roots = roots_known and takes_roots(baseline.name)
        roots = " It was given the true roots." if has_roots else ""
        lines.append(f"Beside it, with default settings, {about(baseline)}{roots}")
    lines += texts.lines("method")
    return Section("method", "How it was computed", [Sentences(lines)])
