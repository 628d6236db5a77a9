"""Benchmark: what each adaptation reaches, how far it moves, and whether siblings stay connected.

One parent per transfer, and children of it by every adaptation and several seeds: a vision
transformer of 6 blocks and width 96 that learned CIFAR-100 and is adapted to 2,000 images of
CIFAR-10, and one that learned Fashion-MNIST and is adapted to 1,000 digits of MNIST. The learning
rate of an adaptation is the one of two that has the higher validation accuracy with the first seed.

    python benchmarks/adaptation_modes.py --data-dir DIR [--folder adaptation-modes] [--seeds 4]

DIR has folders `cifar100` and `cifar10`, each with train.parquet and test.parquet (columns `image`
and `label`, rows in random order); `--transfers digits` needs none. What is in the folder is not
grown or measured again: a second run only prints. Written there: TRANSFER.md, TRANSFER.json and
accuracy.svg.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from adaptation_modes_table import Children, Results, markdown, plain, results

from vitarium import Blueprint, Zoo, grow

VIT = {"name": "vit", "embed_dim": 96, "depth": 6, "num_heads": 4}
PARENT = "pretrain"


@dataclass(frozen=True)
class Transfer:
    """A parent's data and those of its children."""

    title: str
    architecture: Mapping[str, Any]
    source: Mapping[str, Any]
    target: Mapping[str, Any]
    source_augmentation: Mapping[str, Any]
    target_augmentation: Mapping[str, Any]
    source_epochs: int
    target_epochs: int


def cifar(name: str, num_classes: int, train_limit: int) -> dict[str, Any]:
    """A data set of parquet files, as `subset` writes them."""
    return {
        "name": "hf",
        "folder": name,
        "num_classes": num_classes,
        "num_train": SUBSET["train"],
        "val_fraction": 1000 / SUBSET["train"],
        "train_limit": train_limit,
        "mean": [0.507, 0.487, 0.441],
        "std": [0.267, 0.256, 0.276],
    }


SUBSET = {"train": 26000, "test": 2000}
"""Images of the parquet files that are used, the first of each: all are scored in every epoch."""
SHIFTED = {"name": "standard", "crop": "random", "padding": 2}
FLIPPED = {"name": "standard", "crop": "random", "padding": 4, "horizontal_flip": 0.5}
TRANSFERS = {
    "cifar": Transfer(
        title="CIFAR-100 to 2,000 images of CIFAR-10",
        architecture={**VIT, "img_size": 32, "patch_size": 8},
        source=cifar("cifar100", 100, 25000),
        target=cifar("cifar10", 10, 2000),
        source_augmentation=FLIPPED,
        target_augmentation=FLIPPED,
        source_epochs=14,
        target_epochs=6,
    ),
    "digits": Transfer(
        title="Fashion-MNIST to 1,000 digits",
        architecture={**VIT, "img_size": 28, "patch_size": 7, "in_chans": 1},
        source={"name": "fashion_mnist", "train_limit": 20000, "val_fraction": 1 / 60},
        target={"name": "mnist5k", "train_limit": 1000},
        source_augmentation=SHIFTED,
        target_augmentation=SHIFTED,
        source_epochs=10,
        target_epochs=12,
    ),
}
ADAPTATIONS: dict[str, tuple[Mapping[str, Any], tuple[float, float]]] = {
    "full": ({"name": "full"}, (1e-3, 3e-3)),
    "head": ({"name": "head"}, (3e-2, 1e-1)),
    "last block": ({"name": "last_blocks", "count": 1}, (2e-3, 6e-3)),
    "norms": ({"name": "norms"}, (1e-2, 3e-2)),
    "biases": ({"name": "biases"}, (1e-2, 3e-2)),
    "layer decay": ({"name": "layer_decay"}, (2e-3, 6e-3)),
    "L2-SP": ({"name": "towards_start"}, (1e-3, 3e-3)),
    "LoRA": ({"name": "lora"}, (3e-3, 1e-2)),
    "Kronecker": ({"name": "kronecker"}, (1e-2, 3e-2)),
    "orthogonal": ({"name": "orthogonal"}, (1e-2, 3e-2)),
    "ExPLoRA, with labels": ({"name": "explora"}, (2e-3, 6e-3)),
    "adapter": ({"name": "adapter", "bottleneck": 16}, (3e-3, 1e-2)),
    "prompts, shallow": ({"name": "vpt"}, (2e-2, 6e-2)),
    "prompts, deep": ({"name": "vpt", "deep": True}, (2e-2, 6e-2)),
    "TCPA": ({"name": "tcpa", "random_epochs": 2}, (2e-2, 6e-2)),
    "linearized": ({"name": "linearized"}, (1e-3, 3e-3)),
}
"""By the stage's name: settings, and the learning rates that are tried."""
ADDED = ("adapter", "prompts, shallow", "prompts, deep", "TCPA", "linearized")
"""Adaptations whose children are no plain vision transformers."""


def blueprint(transfer: Transfer, factors: Mapping[str, Sequence[tuple[float, int]]]) -> Any:
    """A parent, and a stage per adaptation with learning rates and seeds of its children."""
    shared = {"optimizer": {"name": "adamw", "weight_decay": 0}, "checkpoints": [0]}
    parent = {
        "architecture": dict(transfer.architecture),
        "data": dict(transfer.source),
        "augmentation": transfer.source_augmentation,
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "epochs": transfer.source_epochs,
        "batch_size": 100,
        "checkpoints": "last",
    }
    stages: dict[str, Any] = {PARENT: parent}
    for name, rates_and_seeds in factors.items():
        stages[name] = {
            "start": PARENT,
            "data": dict(transfer.target),
            "augmentation": transfer.target_augmentation,
            "adaptation": dict(ADAPTATIONS[name][0]),
            **shared,
            "schedule": {"name": "cosine", "warmup_epochs": 1},
            "epochs": transfer.target_epochs,
            "batch_size": 25,
            "variants": [{"optimizer.lr": rate, "seed": seed} for rate, seed in rates_and_seeds],
        }
    return Blueprint.read({"name": "adaptation-modes", "stages": stages})


@dataclass(frozen=True)
class Run:
    """Where and how a transfer is grown."""

    transfer: Transfer
    zoo: Path
    data_dir: Path
    workers: int

    def grow(self, factors: Mapping[str, Sequence[tuple[float, int]]]) -> tuple[Zoo, pd.DataFrame]:
        """The zoo, and its rows of these children; growing goes on where it was stopped."""
        options: dict[str, Any] = {"precision": "fp32", "compiled": False, "stacked": 1}
        growth = grow(
            blueprint(self.transfer, factors),
            self.zoo,
            workers=self.workers,
            threads=1,
            data_dir=self.data_dir,
            **options,
        )
        if not growth.complete:
            raise SystemExit(repr(growth))
        models = growth.zoo.models(measured=False)
        return growth.zoo, models[models["id"].isin([model.id for model in growth.plan.models])]


def chosen_rates(run: Run, adaptations: Sequence[str]) -> dict[str, float]:
    """By adaptation, of its learning rates that of the highest validation accuracy, first seed."""
    tried = {name: [(rate, 0) for rate in ADAPTATIONS[name][1]] for name in adaptations}
    _, models = run.grow(tried)
    models = models[models["stage"] != PARENT]
    best = models.loc[models.groupby("stage")["val_accuracy"].idxmax()]
    return dict(zip(best["stage"], best["optimizer.lr"], strict=True))


def subset(source: Path, folder: Path) -> None:
    """Write the first rows of parquet files to another folder."""
    import pyarrow.parquet

    for split, count in SUBSET.items():
        written = folder / f"{split}.parquet"
        if not written.exists():
            folder.mkdir(parents=True, exist_ok=True)
            rows = pyarrow.parquet.read_table(source / f"{split}.parquet").slice(0, count)
            partial = written.with_suffix(".partial")
            pyarrow.parquet.write_table(rows, partial)
            partial.replace(written)


def main() -> int:
    args = parsed()
    for name in args.transfers:
        if name == "cifar":
            for data in ("cifar100", "cifar10"):
                subset(args.data_dir / data, args.folder / "data" / data)
        started = time.monotonic()
        run = Run(TRANSFERS[name], args.folder / name, args.folder / "data", args.workers)
        rates = chosen_rates(run, [name for name in ADAPTATIONS if name not in args.without])
        seeds = range(args.seeds)
        zoo, models = run.grow({n: [(rate, seed) for seed in seeds] for n, rate in rates.items()})
        measured = results(Children(zoo, in_order(models), run.data_dir))
        (parent,) = models[models["stage"] == PARENT]["test_accuracy"]
        write(args.folder, name, parent, measured)
        print(f"{name}: {time.monotonic() - started:.0f} s\n\n{markdown(measured)}", flush=True)
    draw(args.folder)
    return 0


def in_order(models: pd.DataFrame) -> pd.DataFrame:
    """Rows of the children, by adaptation and seed."""
    order = {name: number for number, name in enumerate(ADAPTATIONS)}
    children = models[models["stage"] != PARENT]
    children = children.assign(order=children["stage"].map(order))
    return children.sort_values(["order", "seed"], ignore_index=True)


def write(folder: Path, name: str, parent_accuracy: float, measured: Results) -> None:
    """The table as Markdown and JSON."""
    about = {"parent_test_accuracy": parent_accuracy, **plain(measured)}
    (folder / f"{name}.md").write_text(markdown(measured))
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")


def draw(folder: Path) -> None:
    """Accuracy by the number of trained parameters, a panel for each transfer that is there."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    shown = [name for name in TRANSFERS if (folder / f"{name}.json").exists()]
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "vitarium", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(shown), figsize=(4.8 * len(shown), 4.2), squeeze=False)
    for axes, name in zip(panels[0], shown, strict=True):
        rows = json.loads((folder / f"{name}.json").read_text())["rows"]
        for row in rows:
            accuracy = row["accuracy"]
            bounds = [[accuracy["value"] - accuracy["low"]], [accuracy["high"] - accuracy["value"]]]
            color = "#9a6700" if row["adaptation"] in ADDED else "#1f6feb"
            axes.errorbar(row["trained"], accuracy["value"], bounds, fmt="o", ms=4, color=color)
            label = (row["trained"], accuracy["value"])
            axes.annotate(
                row["adaptation"], label, xytext=(4, 4), textcoords="offset points", size=7
            )
        axes.set(xscale="log", xlabel="parameters that learn", title=TRANSFERS[name].title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("test accuracy, 95 % intervals over seeds")
    figure.tight_layout()
    figure.savefig(folder / "accuracy.svg", metadata={"Date": None})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="has the folders cifar100 and cifar10")
    parser.add_argument("--folder", type=Path, default=Path("adaptation-modes"))
    parser.add_argument("--transfers", nargs="+", choices=TRANSFERS, default=list(TRANSFERS))
    parser.add_argument("--seeds", type=int, default=4, help="children of each adaptation")
    parser.add_argument("--without", nargs="+", choices=list(ADAPTATIONS)[2:], default=[])
    parser.add_argument("--workers", type=int, default=2, help="models that are grown at a time")
    args = parser.parse_args()
    if "cifar" in args.transfers and args.data_dir is None:
        parser.error("name the folder of cifar100 and cifar10 with --data-dir")
    if args.seeds < 4:
        parser.error("intervals need 4 seeds or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
