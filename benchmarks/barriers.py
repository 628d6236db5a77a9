"""Benchmark: how high the loss rises between two models, before and after each way to align them.

Two models of a zoo that were trained independently; the second is aligned with the first by every
method, and the barrier on the straight line is measured on the test split, at 25 points and on
2,000 images. Beside it stand the barriers of Theus et al. 2025 (arXiv 2506.22712, Table 1): two
vision transformers of 6 blocks, 8 heads and width 256 that learned CIFAR-10 for 150 epochs. For
transformers trained otherwise the order of the methods is to be expected, not the figures.

    python benchmarks/barriers.py ZOO ID ID [--steps 1000] [--data-dir DIR] [--methods NAME ...]
    python benchmarks/barriers.py --steps 150

What is aligned is kept in the zoo, so that a second run goes on where the first was stopped.
Without a zoo two small models learn scikit-learn's digits first, in a minute; their barriers were
2.60 unaligned, 1.25 by permutations that match weights, 0.75 by orthogonal maps, 0.60 by the
straight-through method, 0.32 by learned permutations and 0.00 by learned maps of all kinds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vitarium import Blueprint, Zoo, grow, measure, merge
from vitarium.core.registry import choose

PUBLISHED = {
    "none": 1.69,
    "activation matching": 1.27,
    "weight matching, orthogonal": 0.36,
    "learned, permutations": 0.45,
    "learned, full": 0.00,
}
POINTS, IMAGES, STEPS = 25, 2000, 1000


def methods(steps: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Operator and settings by the method's name."""
    return {
        "activation matching": ("activation_matching", {}),
        "transport": ("transport", {}),
        "weight matching, permutations": ("weight_matching", {}),
        "straight-through": ("straight_through", {"steps": steps}),
        "weight matching, orthogonal": ("orthogonal_matching", {}),
        "learned, permutations": ("learned_matching", {"maps": "permutations", "steps": steps}),
        "learned, full": ("learned_matching", {"steps": steps}),
    }


DIGITS = {
    "name": "digits-pair",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "vit",
                "img_size": 8,
                "patch_size": 4,
                "in_chans": 1,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 4,
                "mlp_ratio": 2,
            },
            "data": {"name": "digits"},
            "augmentation": {"name": "standard", "crop": "random", "padding": 1},
            "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.05},
            "epochs": 30,
            "batch_size": 64,
            "grid": {"seed": [1, 2]},
        }
    },
}
"""Two models that were trained independently."""


def main() -> int:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.zoo:
            run(Zoo.open(arguments.zoo), *arguments.models, arguments)
        else:
            zoo = grow(Blueprint.read(DIGITS), Path(folder) / "zoo", workers=0).zoo
            run(zoo, *zoo.ids(), arguments)
    return 0


def run(zoo: Zoo, one: str, other: str, arguments: argparse.Namespace) -> None:
    """Align by every method, and show the barriers."""
    found = {"none": {"seconds": 0.0, **barrier(zoo, one, other, arguments)}}
    for name, (operator, settings) in methods(arguments.steps).items():
        if arguments.methods and name not in arguments.methods:
            continue
        started = time.monotonic()
        data_dir = arguments.data_dir
        merged = merge(
            zoo, operator, models=[one, other], stage="aligned", data_dir=data_dir, **settings
        ).id
        seconds = time.monotonic() - started
        found[name] = {"seconds": seconds, **barrier(zoo, one, merged, arguments)}
        print(json.dumps({"method": name, "model": merged, **found[name]}), flush=True)
    show(found)


def parsed() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", type=Path, nargs="?")
    parser.add_argument("models", nargs="*", metavar="ID", help="two, each after its last epoch")
    parser.add_argument("--steps", type=int, default=STEPS, help="of methods that train")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--methods", nargs="*", choices=list(methods(1)))
    arguments = parser.parse_args()
    if len(arguments.models) != (2 if arguments.zoo else 0):
        parser.error("name a zoo and two of its models, or neither")
    return arguments


def barrier(zoo: Zoo, one: str, other: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The barrier's parts, on the test split."""
    section = choose("measure", "barrier", points=arguments.points, num_images=arguments.images)
    data_dir = arguments.data_dir
    table = measure(zoo, [section], models=[one, other], pairs="all", data_dir=data_dir)
    if (table["refused"] != "").any():
        raise SystemExit(table["refused"].iloc[0])
    values = zip(table["part"], table["value"], strict=True)
    return {part or "loss": value for part, value in values}


def show(found: dict[str, dict[str, float]]) -> None:
    table = Table(title="Barriers on the straight line")
    for column in ("aligned by", "loss, nats", "published", "error", "loss halfway", "seconds"):
        table.add_column(column, justify="left" if column == "aligned by" else "right")
    for name, each in found.items():
        told = f"{PUBLISHED[name]:.2f}" if name in PUBLISHED else ""
        values = [f"{each[key]:.3f}" for key in ("loss", "error", "midpoint/loss")]
        table.add_row(name, values[0], told, *values[1:], f"{each['seconds']:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
