"""Benchmark: what it costs to compute a batch in parts (`accumulation`), in images per second.

Steps of the same batch, whole and in parts, are timed in turns in one process, so that what else
runs slows both alike. Reported are medians of the rounds' ratios.

    python benchmarks/accumulation.py [--rounds 9] [--threads 1]
"""

import argparse
import json
import statistics
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from vitarium.blueprint import Recipe
from vitarium.engine.tuning._bench import Bench, threads
from vitarium.training import TrainOptions

CLASSES, TARGET = 100, 0.03
MODELS: dict[str, dict[str, Any]] = {
    "ViT-S, 224 pixels, fp32": {"embed_dim": 384, "num_heads": 6, "depth": 12},
    "ViT-Ti, 224 pixels, fp32": {"embed_dim": 192, "num_heads": 3, "depth": 12},
}
BATCH, PARTS = 16, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    table = Table(title=f"Batches of {BATCH} in {PARTS} parts")
    for column in ("model", "images/s, whole", "in parts", "cost", "target"):
        table.add_column(column, justify="left" if column == "model" else "right")
    costs = {}
    with threads(args.threads):
        for name, architecture in MODELS.items():
            whole, parts = measured(architecture, args.rounds)
            ratios = [part / full for full, part in zip(whole, parts, strict=True)]
            costs[name] = statistics.median(ratios) - 1
            rates = (f"{BATCH / statistics.median(times):.1f}" for times in (whole, parts))
            table.add_row(name, *rates, f"{costs[name]:+.1%}", f"{TARGET:.0%}")
    Console().print(table)
    reached = max(costs.values()) <= TARGET
    print(f"accumulation costs {max(costs.values()):.1%} at most: target", end=" ")
    print("reached" if reached else "missed")
    print(json.dumps({"benchmark": "accumulation", "cost": costs, "reached": reached}), flush=True)
    return 0 if reached else 1


def measured(architecture: dict[str, Any], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of steps with the whole batch and with its parts, by round."""
    benches = [bench(architecture, parts) for parts in (1, PARTS)]
    for each in benches:
        each.step()  # warms up
    pairs = [[each.step() for each in benches] for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def bench(architecture: dict[str, Any], parts: int) -> Bench:
    recipe = Recipe.read(
        {
            "architecture": {"name": "vit", **architecture},
            "data": "cifar100",
            "epochs": 1,
            "batch_size": BATCH,
            "accumulation": parts,
        }
    )
    return Bench(recipe, CLASSES, TrainOptions(), stacked=1, images=BATCH)


if __name__ == "__main__":
    sys.exit(main())
