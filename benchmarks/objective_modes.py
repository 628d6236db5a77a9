"""Benchmark: what each pre-training objective's features are worth, and whether it sets them apart.

A small vision transformer (width 64, 4 blocks, 16 patches) learns CIFAR-100 by each objective and
several seeds, for as many images each; the features are scored on CIFAR-10 as they are, against
random features and pixels, and then fine-tuned on 2,000 of its images in four ways, against
training from scratch.

    python benchmarks/objective_modes.py --data-dir DIR [--folder objective-modes] [--seeds 2]

DIR has folders `cifar100` and `cifar10`, each with train.parquet and test.parquet (columns `image`
and `label`, rows in random order). What is in the folder is not grown again: a second run only
prints. Written there: objectives.md and objectives.json.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from adaptation_modes import cifar, subset
from objective_modes_table import Measured, markdown, measured

from vitarium import Blueprint, Zoo, grow

ARCHITECTURE = {
    "name": "vit",
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
}
FLIPPED = {"name": "standard", "crop": "random", "padding": 4, "horizontal_flip": 0.5}
RESIZED = {"name": "standard", "crop": "random_resized", "scale": [0.2, 1], "horizontal_flip": 0.5}
TWO_VIEWS = {"name": "simclr", "blur": 0, "scale": [0.2, 1]}
CROPS = {
    "name": "multi_crop",
    "local_crops": 4,
    "local_size": 16,
    "interpolation": "bilinear",
    "global_blur": [0, 0],
    "local_blur": 0,
}
SMALL_DECODER = {"decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 4}
SMALL_PROJECTOR = {"projector_hidden_dim": 256, "out_dim": 64}
SMALL_HEAD = {"prototypes": 512, "hidden_dim": 192, "bottleneck_dim": 64}


@dataclass(frozen=True)
class Pretraining:
    """How models of one objective are trained."""

    objective: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    lr: float = 1e-3
    weight_decay: float = 0.05
    settings: Mapping[str, Any] = field(default_factory=dict)


OBJECTIVES = {
    "supervised": Pretraining({"name": "supervised"}, FLIPPED),
    "SimCLR": Pretraining({"name": "simclr", "temperature": 0.2}, TWO_VIEWS,
                          settings={"head": {"name": "mlp", "hidden_dim": 256}}),
    "MoCo v3": Pretraining({"name": "moco_v3", **SMALL_PROJECTOR}, TWO_VIEWS),
    "MAE": Pretraining({"name": "mae", **SMALL_DECODER}, RESIZED),
    "MFF": Pretraining({"name": "mff", **SMALL_DECODER}, RESIZED),
    "DINO": Pretraining({"name": "dino", **SMALL_HEAD}, CROPS),
    "iBOT": Pretraining({"name": "ibot", **SMALL_HEAD}, CROPS),
    "DINOv2": Pretraining({"name": "dinov2", **SMALL_HEAD}, CROPS),
    "DINOv2, Gram": Pretraining({"name": "dinov2", **SMALL_HEAD, "gram": {"from_epoch": 4}}, CROPS),
}  # fmt: skip
"""By the stage's name."""
PAIRED = (("MFF", "MAE"), ("DINOv2, Gram", "DINOv2"))
"""Objectives that are compared seed by seed."""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "full": {"adaptation": "full", "optimizer.lr": 1e-3},
    "layer decay": {"adaptation": "layer_decay", "optimizer.lr": 2e-3},
    "LoRA": {"adaptation": "lora", "optimizer.lr": 5e-3},
    "head": {"adaptation": "head", "optimizer.lr": 3e-2},
}
SCRATCH = "scratch"
TUNED = "{}, fine-tuned"
"""Name of the stage that starts from an objective's."""
SOURCE_EPOCHS, SOURCE_IMAGES, TARGET_EPOCHS, TARGET_IMAGES = 10, 12_000, 8, 2000


def blueprint(seeds: Mapping[str, Sequence[int]]) -> Blueprint:
    """A stage of pre-training per objective, by the seeds of each, and one of fine-tuning; and
    training from scratch by the largest number of seeds."""
    stages: dict[str, Any] = {}
    schedule = {"name": "cosine", "warmup_epochs": 1}
    target = {
        "data": cifar("cifar10", 10, TARGET_IMAGES),
        "augmentation": FLIPPED,
        "optimizer": {"name": "adamw", "weight_decay": 0.0},
        "schedule": schedule,
        "epochs": TARGET_EPOCHS,
        "batch_size": 50,
        "checkpoints": "last",
    }
    for name, chosen in seeds.items():
        pretraining = OBJECTIVES[name]
        stages[name] = {
            "architecture": ARCHITECTURE,
            "data": cifar("cifar100", 100, SOURCE_IMAGES),
            "augmentation": pretraining.augmentation,
            "objective": pretraining.objective,
            "optimizer": {
                "name": "adamw",
                "lr": pretraining.lr,
                "weight_decay": pretraining.weight_decay,
            },
            "schedule": schedule,
            "epochs": SOURCE_EPOCHS,
            "batch_size": 100,
            "checkpoints": [0],
            **pretraining.settings,
            "grid": {"seed": list(chosen)},
        }
        stages[TUNED.format(name)] = {
            **target,
            "start": name,
            "objective": "supervised",
            "head": "linear",
            "variants": [dict(way) for way in WAYS.values()],
        }
    largest = max(seeds.values(), key=len)
    stages[SCRATCH] = {
        **target,
        "architecture": ARCHITECTURE,
        "grid": {"seed": list(largest), "optimizer.lr": [1e-3, 3e-3]},
    }
    return Blueprint.read({"name": "objective-modes", "stages": stages})


def main() -> int:
    args = parsed()
    for data in ("cifar100", "cifar10"):
        subset(args.data_dir / data, args.folder / "data" / data)
    started = time.monotonic()
    in_pairs = {name for pair in PAIRED for name in pair}
    seeds = {
        name: range(max(args.seeds, args.pairs) if name in in_pairs else args.seeds)
        for name in OBJECTIVES
        if name not in args.without
    }
    zoo, models = grown(blueprint(seeds), args)
    results = measured(Measured(zoo, models, args.folder / "data"), list(seeds), PAIRED)
    (args.folder / "objectives.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.folder / "objectives.md").write_text(markdown(results))
    print(f"{time.monotonic() - started:.0f} s\n\n{markdown(results)}")
    return 0


def grown(design: Blueprint, args: argparse.Namespace) -> tuple[Zoo, pd.DataFrame]:
    """The zoo, and its rows; growing goes on where it was stopped."""
    options: dict[str, Any] = {"precision": "fp32", "compiled": False, "stacked": 1}
    folder, data_dir = args.folder / "zoo", args.folder / "data"
    growth = grow(design, folder, workers=args.workers, threads=1, data_dir=data_dir, **options)
    if not growth.complete:
        raise SystemExit(repr(growth))
    models = growth.zoo.models(measured=False)
    return growth.zoo, models[models["id"].isin([model.id for model in growth.plan.models])]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="has cifar100 and cifar10")
    parser.add_argument("--folder", type=Path, default=Path("objective-modes"))
    parser.add_argument("--seeds", type=int, default=2, help="models of each objective")
    parser.add_argument("--pairs", type=int, default=4, help="of those that are compared in pairs")
    parser.add_argument("--without", nargs="+", choices=OBJECTIVES, default=[])
    parser.add_argument("--workers", type=int, default=2, help="models that are grown at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
