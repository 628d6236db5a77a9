"""Benchmark: what accuracy post-training compression leaves at each rate, beside a random choice.

Small ViTs of 300,000 parameters and patches of 4 by 4 pixels are trained on Fashion-MNIST and on
5,000 images of CIFAR-10 with six seeds each. Every method makes twins of all of them at several
rates; a row is their mean test accuracy with an interval over the models, and the difference from
a random choice at the same rate, model by model. Then the orders that papers report, at each rate:
fusing patches beats dropping them, attention beats a random choice, calibrated quantizers beat
rounding to nearest, whitening beats a plain SVD, and so on.

    python benchmarks/twin_rates.py --data-dir DIR [--folder twin_rates] [--seeds 6]
        [--only FAMILY ...] [--without cifar10] [--epochs N] [--workers 2]

DIR is as for architectures.py. What is in the folder is not computed again, so that it can be run
in parts. Written there: twin_rates.md, twin_rates.json and twin_rates.svg.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from adaptation_modes import subset
from twin_rates_table import Order, Row, markdown, picture

from architectures import CIFAR, FASHION, Task, grown, shortened
from vitarium import Blueprint, Zoo, compress, measure
from vitarium.core.errors import VitariumError

SHARES = (0.9, 0.7, 0.5, 0.3)
BITS = (8, 6, 4, 3)
VIT: Mapping[str, Any] = {"name": "vit", "embed_dim": 64, "depth": 6, "num_heads": 4}
TASKS: Mapping[str, Task] = {
    "fashion_mnist": replace(FASHION[60_000], patch_size=4, epochs=3),
    "cifar10": replace(CIFAR, patch_size=4, epochs=12),
}


@dataclass(frozen=True)
class Curve:
    """A method at several rates; `field` or fields are the settings that are the rate."""

    operator: str
    fields: tuple[str, ...]
    rates: Sequence[float]
    settings: Mapping[str, Any]

    def at(self, rate: float) -> dict[str, Any]:
        return {**self.settings, **dict.fromkeys(self.fields, rate)}


def curve(operator: str, fields: str, rates: Sequence[float] = SHARES, **settings: Any) -> Curve:
    return Curve(operator, tuple(fields.split()), rates, settings)


FAMILIES: Mapping[str, Mapping[str, Curve]] = {
    "patches": {
        "EViT": curve("evit", "keep_rate"),
        "EViT, dropping": curve("evit", "keep_rate", fuse=False),
        "EViT, random": curve("evit", "keep_rate", ranking="random"),
        "ToMe": curve("tome", "r", (1, 2, 4, 8)),
        "ToMe, sizes ignored": curve("tome", "r", (1, 2, 4, 8), proportional=False),
        "MCTF": curve("mctf", "r", (1, 2, 4, 8)),
    },
    "weights": {
        "SparseGPT": curve("sparsegpt", "density"),
        "Wanda": curve("wanda", "density"),
        "magnitude": curve("magnitude_pruning", "density"),
        "random weights": curve("magnitude_pruning", "density", ranking="random"),
    },
    "heads and hidden units": {
        "Taylor": curve("structured_pruning", "head_density mlp_density", (0.75, 0.5, 0.25)),
        "unit magnitude": curve(
            "structured_pruning",
            "head_density mlp_density",
            (0.75, 0.5, 0.25),
            importance="magnitude",
        ),
        "random units": curve(
            "structured_pruning", "head_density mlp_density", (0.75, 0.5, 0.25), importance="random"
        ),
    },
    "blocks": {
        "influence": curve("depth_pruning", "remove", (1, 2, 3)),
        "random blocks": curve("depth_pruning", "remove", (1, 2, 3), distance="random"),
    },
    "rank": {
        "whitened SVD": curve("whitened_svd", "parameter_ratio"),
        "SVD": curve("svd", "parameter_ratio"),
    },
    "bits": {
        "RepQ-ViT": curve("repq", "weight_bits activation_bits", BITS),
        "nearest": curve("round_to_nearest", "weight_bits activation_bits", BITS),
    },
}
RANDOM: Mapping[str, str] = {
    "EViT": "EViT, random",
    "EViT, dropping": "EViT, random",
    "SparseGPT": "random weights",
    "Wanda": "random weights",
    "magnitude": "random weights",
    "Taylor": "random units",
    "unit magnitude": "random units",
    "influence": "random blocks",
}
"""What methods are compared with at the same rate."""
PUBLISHED: Sequence[tuple[str, str, str]] = (
    ("fusing beats dropping", "EViT", "EViT, dropping"),
    ("attention beats a random choice", "EViT", "EViT, random"),
    ("attention by sizes beats without", "ToMe", "ToMe, sizes ignored"),
    ("inputs count beside magnitudes", "Wanda", "magnitude"),
    ("updating the other weights helps", "SparseGPT", "Wanda"),
    ("magnitudes beat a random choice", "magnitude", "random weights"),
    ("gradients beat magnitudes of units", "Taylor", "unit magnitude"),
    ("influence beats a random choice", "influence", "random blocks"),
    ("whitening beats a plain SVD", "whitened SVD", "SVD"),
    ("calibrated beats nearest", "RepQ-ViT", "nearest"),
)


def blueprint(task: Task, seeds: int) -> Blueprint:
    """One stage of originals."""
    stage = {
        "architecture": {**VIT, **task.images},
        "data": dict(task.data),
        "augmentation": dict(task.augmentation),
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.1 * task.epochs},
        "epochs": task.epochs,
        "batch_size": 50,
        "clip_grad_norm": 1.0,
        "checkpoints": "last",
        "grid": {"seed": list(range(seeds))},
    }
    return Blueprint.read({"name": "twin_rates", "stages": {"original": stage}})


def values_of(zoo: Zoo, models: Sequence[str], data_dir: Path) -> pd.DataFrame:
    """Accuracy and FLOPs, a row per model."""
    table = measure(zoo, ["accuracy", "flops"], models=list(models), data_dir=data_dir)
    table = table[table["part"] == ""]
    return table.pivot(index="model", columns="measure", values="value").loc[list(models)]


def rows(task: Task, args: argparse.Namespace) -> Iterator[Row]:
    """Of every curve and rate; a method that refuses is a row that says why."""
    folder = args.folder / task.name.partition(",")[0].replace(" ", "-")
    zoo, models = grown(blueprint(task, args.seeds), folder, args)
    originals, data_dir = list(models["id"]), args.folder / "data"
    before = values_of(zoo, originals, data_dir)
    yield Row(task.name, "", "original", 1.0, list(before["accuracy"]), 1.0)
    for family in args.only or FAMILIES:
        for label, method in FAMILIES[family].items():
            for rate in method.rates:
                row = Row(task.name, family, label, rate)
                try:
                    options: dict[str, Any] = {"epochs": 0, "data_dir": data_dir, "device": "cpu"}
                    options |= {"models": originals, **method.at(rate)}
                    students = compress(zoo, method.operator, **options).students
                    twins = [students[f"{id}@{task.epochs}"] for id in originals]
                    after = values_of(zoo, twins, data_dir)
                except VitariumError as error:
                    yield replace(row, refused=str(error))
                    continue
                operations = (after["flops"].to_numpy() / before["flops"].to_numpy()).mean()
                accuracy = list(after["accuracy"])
                yield replace(row, accuracy=accuracy, operations=float(operations))
                mean = sum(accuracy) / len(accuracy)
                print(f"{task.name}: {label} at {rate}: {mean:.4f}", flush=True)


def main() -> int:
    args = parsed()
    started = time.monotonic()
    tasks = [name for name in TASKS if name not in args.without]
    if "cifar10" in tasks:
        subset(args.data_dir / "cifar10", args.folder / "data" / "cifar10")
    args.folder.mkdir(parents=True, exist_ok=True)
    results = [row for name in tasks for row in rows(shortened(TASKS[name], args), args)]
    orders = [
        Order.of(published, results, task) for published in PUBLISHED for task in tasks_of(results)
    ]
    text = markdown(results, [order for order in orders if order.rates], RANDOM)
    (args.folder / "twin_rates.md").write_text(text)
    content = {"rows": [vars(row) for row in results], "orders": [vars(o) for o in orders]}
    (args.folder / "twin_rates.json").write_text(json.dumps(content, indent=2) + "\n")
    picture(results, args.folder / "twin_rates.svg")
    print(f"{time.monotonic() - started:.0f} s\n\n{text}")
    return 0


def tasks_of(results: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.task for row in results))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="has cifar10")
    parser.add_argument("--folder", type=Path, default=Path("twin_rates"))
    parser.add_argument("--seeds", type=int, default=6, help="originals of each data set")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="FAMILY")
    parser.add_argument("--without", nargs="+", choices=TASKS, default=[])
    parser.add_argument("--epochs", type=int, help="of all originals, for a trial")
    parser.add_argument("--workers", type=int, default=2, help="models that are grown at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
