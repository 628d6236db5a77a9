"""Efficient twins beside their originals: what they lose, what they save, and what remains."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.base import Population, Section, Sentences, Tables, study
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Resampled
from vitarium.studies.twins import figures, tables
from vitarium.studies.twins.comparison import Family
from vitarium.studies.twins.families import Twin, find_twins
from vitarium.studies.twins.lost_images import lost_images
from vitarium.studies.twins.measured import Measurements, Timing, processor
from vitarium.studies.twins.recovery import Recovery, recoveries
from vitarium.studies.twins.sentences import sentences
from vitarium.studies.twins.soups import twin_soups
from vitarium.zoo import Zoo

texts = Texts("twins", "page")


class Twins(Resampled):
    """Settings of the study of twins."""

    threads: PositiveInt | None = None
    """Threads by which models are timed; none: as many as torch uses."""
    runs: int = Field(30, ge=2)
    """Pairs of runs in which a twin and its original are timed."""
    batch_size: PositiveInt = 1
    """Images in each of these runs."""
    sheet: NonNegativeInt = 24
    """Largest number of lost images that are shown of each original."""
    lineage: str = "descent"
    """Method of lineage recovery that is tried on twins; `vitarium plugins lineage` lists all."""
    soup_models: int = Field(16, ge=2)
    """Largest number of twins that are averaged."""


def _add_twin(zoo: Zoo) -> None:
    from vitarium.operators._runner.merge import merge

    model = zoo.models(measured=False)["id"].iloc[-1]
    merge(zoo, "tome", models=[model], r=1)


@study(
    "twins",
    title="Twins",
    prepare=_add_twin,
    tiny={"n_resamples": 20, "runs": 2, "threads": 1},
)
def twins(config: Twins, population: Population) -> Tables:
    """What efficient twins lose and save beside their originals: accuracy, speed, memory, lineage.

    A twin is what `vitarium compress` made of a model, or of a twin. Of each: accuracy, agreement
    with its original and calibration, parameters, bytes, FLOPs, latency in paired runs and peak
    memory; Pareto fronts; the images that it loses; whether lineage recovery still finds its
    parent; and whether twins of several originals can be averaged.

    Examples:

      vitarium study twins demo-zoo

      vitarium study twins demo-zoo d704 --threads 2 --runs 100

      vitarium study twins demo-zoo --figures figures --where "stage = 'compressed'"
    """
    by_original, left_out = find_twins(population.zoo, population.ids)
    if not by_original:
        raise InvalidInput(
            f"{population.zoo.path}: no model has a twin; `vitarium compress` makes one, e.g. by "
            f"{parameter('method', 'tome')}"
        )
    device = find_devices(population.device)[0]
    loader = ModelLoader(
        population.zoo,
        data=population.data,
        normalization=population.normalization,
        device=device,
        data_dir=population.data_dir,
    )
    threads = config.threads or torch.get_num_threads()
    timing = Timing(threads, config.batch_size, config.runs, device)
    families = Measurements(population, loader, timing).families(by_original)
    recovered = recoveries(population, by_original, config.lineage)
    soups = twin_soups(population, loader, families, config.soup_models)
    lines = sentences(families, recovered, soups, config.bootstrap)
    values = {"config": config, "timing": timing, "split": population.split}
    values |= {"processor": processor(device), "level": 100 * config.confidence_level}
    sections = [
        Section("short", "In short", [Sentences(lines)]),
        Section(
            "methods",
            "Accuracy against cost",
            [figures.fronts(families), tables.methods(families, config.bootstrap)],
        ),
        *(_section(config, population, loader, family, recovered) for family in families),
        Section("lineage", "Lineage", [tables.recovery(families, recovered)], texts("lineage")),
        Section("soups", "Soups of twins", [tables.soups(soups, config.confidence_level)]),
        Section("method", "How it was computed", [Sentences(texts.lines("method", **values))]),
    ]
    return Tables(
        f"Twins in {population.name}",
        [section for section in sections if section.blocks],
        _lead(families, left_out),
        _facts(families),
        {"": lines},
    )


def _section(
    config: Twins,
    population: Population,
    loader: ModelLoader,
    family: Family,
    recovered: Mapping[str, Recovery],
) -> Section:
    images = lost_images(family)
    original = family.original.ref
    examples = loader.examples(original.model, population.split, population.num_images)
    blocks = [
        tables.twins(family, recovered, config.confidence_level),
        figures.contact_sheet(family, examples, images[: config.sheet]),
        tables.lost(family, images),
    ]
    title = f"Twins of {original.model[:8]}@{original.epoch}"
    return Section(f"original-{original}", title, blocks)


def _lead(families: Sequence[Family], left_out: Sequence[Twin]) -> str:
    counts = {"originals": len(families), "twins": sum(len(family.twins) for family in families)}
    lead = texts("lead", **counts)
    return f"{lead} {texts('left_out', count=len(left_out))}" if left_out else lead


def _facts(families: Sequence[Family]) -> list[tuple[str, str]]:
    methods = {twin.twin.method_name for family in families for twin in family.twins if twin.twin}
    numbers = {
        "originals": len(families),
        "twins": sum(len(family.twins) for family in families),
        "methods": len(methods),
    }
    return [(str(number), name) for name, number in numbers.items()]
