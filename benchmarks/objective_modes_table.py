"""What `objective_modes.py` measures of its zoo, and the table of it.

A score is a share of test images. Intervals of 95 % come of drawing both again: the images, and the
models that differ in their seed alone. Two models (`--seeds 2`) say little of the variety of seeds:
their intervals are mostly of images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from adaptation_modes import cifar
from numpy.typing import NDArray
from torch import Tensor

from vitarium import Zoo, measure
from vitarium.core.registry import choose, section
from vitarium.data.load import load
from vitarium.data.loader import Batches
from vitarium.objectives._feature_scores import LinearProbe, images_features
from vitarium.objectives._nearest_neighbors import knn_classify
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.variance import complete, explained

BANK = 10_000
"""Training images of CIFAR-10 by which features are scored."""
DRAWS = 2000
PIXELS, RANDOM = "pixels", "random features"
Correct = NDArray[np.bool_]
"""Which test images are classified correctly, [models, images]."""
Interval = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """A grown zoo: a row of `Zoo.models` for each model."""

    zoo: Zoo
    models: pd.DataFrame
    data_dir: Path

    @cached_property
    def images(self) -> Batches:
        """CIFAR-10, as models of this zoo take it."""
        data = load(section("dataset", cifar("cifar10", 10, BANK)), self.data_dir)
        plain = choose("augmentation", "standard")((3, 32, 32), data.num_classes)
        return Batches(data, plain, (3, 32, 32), 250, seed=0)

    def of_stage(self, stage: str) -> pd.DataFrame:
        return self.models[self.models["stage"] == stage].sort_values("seed")

    def features(self, id: str, epoch: int) -> dict[str, Correct]:
        """Which test images are right by k-NN and by a linear probe of a model's features."""
        model = self.zoo.load(id, epoch=epoch).eval()
        with torch.no_grad():
            parts = [images_features(model, self.images.score(s)) for s in ("train", "test")]
        return scored(*parts[0], *parts[1])

    def pixels(self) -> dict[str, Correct]:
        """The same of the images themselves."""
        flat = []
        for split in ("train", "test"):
            batches = list(self.images.score(split))
            images = torch.cat([batch.images.flatten(1) for batch in batches])
            flat += [images, torch.cat([batch.labels for batch in batches])]
        return scored(*flat)

    @torch.no_grad()
    def predicted(self, id: str) -> Correct:
        """Which test images a fine-tuned model has right."""
        model = self.zoo.load(id).eval()
        batches = self.images.score("test")
        return torch.cat([model(b.images).argmax(1) == b.labels for b in batches]).numpy()


def scored(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor
) -> dict[str, Correct]:
    neighbors = torch.cat(
        [knn_classify(bank, bank_labels, part, k=20) for part in queries.split(1000)]
    )
    probed = LinearProbe(bank, bank_labels)(queries)
    return {"knn": (neighbors == labels).numpy(), "probe": (probed == labels).numpy()}


def measured(over: Measured, objectives: Sequence[str], paired: Any) -> dict[str, Any]:
    """A row per objective, comparisons in pairs, and what explains the variety of the children."""
    right: dict[str, dict[str, Correct]] = {PIXELS: stacked([over.pixels()])}
    for name in objectives:
        ids = over.of_stage(name)["id"]
        right[name] = stacked([over.features(id, -1) for id in ids])
        if RANDOM not in right and name != objectives[0]:
            right[RANDOM] = stacked([over.features(id, 0) for id in ids])
    for name in objectives:
        children = over.of_stage(f"{name}, fine-tuned")
        right[name] |= stacked_by_way(over, children)
    scratch = over.of_stage("scratch")
    best = scratch.groupby("optimizer.lr")["val_accuracy"].mean().idxmax()
    ids = scratch[scratch["optimizer.lr"] == best]["id"]
    right["scratch"] = {"full": np.stack([over.predicted(id) for id in ids])}
    rows = [row_of(name, right) for name in (PIXELS, RANDOM, *objectives, "scratch")]
    pairs = [
        {"objective": first, "less": second} | in_pairs(right[first], right[second])
        for first, second in paired
        if {first, second} <= right.keys()
    ]
    return {"rows": rows, "pairs": pairs, "explained": explained_of(over, objectives)}


def stacked(scores: Sequence[Mapping[str, Correct]]) -> dict[str, Correct]:
    return {name: np.stack([each[name] for each in scores]) for name in scores[0]}


def stacked_by_way(over: Measured, children: pd.DataFrame) -> dict[str, Correct]:
    """By adaptation, [seeds, images] in the order of the parents' seeds."""
    return {
        str(way): np.stack([over.predicted(id) for id in group["id"]])
        for way, group in children.groupby("adaptation", sort=False)
    }


def row_of(name: str, right: Mapping[str, Mapping[str, Correct]]) -> dict[str, Any]:
    own, row = right[name], {"objective": name}
    for score in ("knn", "probe"):
        if score in own:
            row[score] = interval(own[score])
            if name not in (PIXELS, RANDOM):
                row[f"{score}_less_pixels"] = interval(own[score], right[PIXELS][score])
                row[f"{score}_less_random"] = interval(own[score], right[RANDOM][score])
    for way in ("full", "layer_decay", "lora", "head"):
        if way in own:
            row[way] = interval(own[way])
            if name != "scratch":
                row[f"{way}_less_scratch"] = interval(own[way], right["scratch"]["full"])
    return row


def interval(right: Correct, base: Correct | None = None) -> Interval:
    """Mean share of [models, images], less that of a base on the same images, with bounds."""
    noise = np.random.default_rng(0)
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        images = np.bincount(
            noise.integers(right.shape[1], size=right.shape[1]), minlength=right.shape[1]
        )
        value = drawn(right, noise) @ images
        value -= 0 if base is None else drawn(base, noise) @ images
        draws[draw] = value / right.shape[1]
    value = right.mean() - (0 if base is None else base.mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def drawn(right: Correct, noise: np.random.Generator) -> NDArray[np.float64]:
    """Mean over models drawn again, [images]"""
    chosen = noise.integers(len(right), size=len(right))
    mean: NDArray[np.float64] = right[chosen].mean(0)
    return mean


def in_pairs(first: Mapping[str, Correct], second: Mapping[str, Correct]) -> dict[str, Interval]:
    """Differences of models of the same seed, which saw the same images; drawn in pairs."""
    scores = [score for score in first if score in second]
    differences = {score: first[score].astype(int) - second[score].astype(int) for score in scores}
    ways = [score for score in scores if score not in ("knn", "probe")]
    differences["all four ways"] = np.mean([differences[way] for way in ways], axis=0)
    return {score: interval(each) for score, each in differences.items()}  # type: ignore[arg-type]


def explained_of(over: Measured, objectives: Sequence[str]) -> dict[str, Any]:
    """What objective, way and seed explain of the variety of all fine-tuned models."""
    stages = [f"{name}, fine-tuned" for name in objectives]
    models = over.models[over.models["stage"].isin(stages)].reset_index(drop=True)
    shares: dict[str, Any] = {}
    for what, name in (("predictions", "agreement"), ("weights", "weight_l2")):
        squared = pairwise(over, list(models["id"]), name)
        squared = 1 - squared if name == "agreement" else squared**2
        np.fill_diagonal(squared, 0)
        known = complete(squared)
        for factor, column in (("objective", "stage"), ("way", "adaptation"), ("seed", "parent")):
            labels = models[column].to_numpy(str)[known]
            if column == "parent":
                labels = seeds_of(over, models)[known]
            effect = explained(
                squared[np.ix_(known, known)], labels.tolist(), bootstrap=Bootstrap()
            )
            if effect:
                adjusted = effect.adjusted
                shares[f"{what} by {factor}"] = {
                    "value": adjusted.value, "low": adjusted.low, "high": adjusted.high,
                    "p": effect.p, "models": effect.models,
                }  # fmt: skip
    return shares


def seeds_of(over: Measured, models: pd.DataFrame) -> NDArray[np.str_]:
    """Seeds of the models' parents."""
    seeds = over.models.set_index("id")["seed"]
    return models["parent"].map(seeds).to_numpy(str)


def pairwise(over: Measured, ids: list[str], name: str) -> NDArray[np.float64]:
    """A measure of all pairs, [models, models]; NaN where there is none."""
    options: dict[str, Any] = {"data_dir": over.data_dir, "device": "cpu"}
    table = measure(over.zoo, [choose("measure", name)], models=ids, pairs="all", **options)
    rows = table[(table["refused"] == "") & (table["part"] == "")]
    index = {id: number for number, id in enumerate(ids)}
    first, second = ([index[id] for id in rows[column]] for column in ("model", "other"))
    values = np.full((len(ids),) * 2, np.nan)
    values[first, second] = values[second, first] = rows["value"]
    return values


COLUMNS = {
    "k-NN, %": "knn",
    "less pixels": "knn_less_pixels",
    "less random": "knn_less_random",
    "probe, %": "probe",
    "less pixels ": "probe_less_pixels",
    "less random ": "probe_less_random",
    "full, %": "full",
    "less scratch": "full_less_scratch",
    "layer decay, %": "layer_decay",
    "LoRA, %": "lora",
    "head, %": "head",
}
"""By title: a row's number."""


def markdown(results: Mapping[str, Any]) -> str:
    """Tables with half the length of each interval, and sentences on what explains variety."""
    lines = [["objective", *COLUMNS], ["---", *["---:"] * len(COLUMNS)]]
    for row in results["rows"]:
        lines.append([row["objective"], *(cell(row.get(name)) for name in COLUMNS.values())])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    for pair in results["pairs"]:
        scores = [
            f"{score} {cell(value)}" for score, value in pair.items() if isinstance(value, dict)
        ]
        text += f"\n{pair['objective']} less {pair['less']}, in points: {', '.join(scores)}.\n"
    for what, share in results["explained"].items():
        text += (
            f"\nOf the variety of {what}: {cell(share)} % beyond chance (p = {share['p']:.3f}, "
            f"{share['models']} models).\n"
        )
    return text


def cell(estimate: Mapping[str, float] | None) -> str:
    """In points, with half the interval's length."""
    if estimate is None:
        return "-"
    value = f"{100 * estimate['value']:.1f}"
    if estimate.get("low") is None:
        return value
    return f"{value} ± {50 * (estimate['high'] - estimate['low']):.1f}"
