"""Benchmark 3: peak memory of a worker, against the size of its model and the number of models.

Every figure is the peak of a process of its own (ru_maxrss). The first table trains one model each
of several sizes for an epoch of a few steps; the second trains more and more tiny models one after
the other in one process, as a worker does: that has to be flat.

    python benchmarks/memory.py
"""

import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.engine.tuning.model_size import parameters
from vitarium.training import train
from vitarium.zoo import ModelFolder

SIZES = {"demo": 64, "ViT-Ti": 192, "ViT-S": 384, "ViT-B": 768}
MODELS, FLAT = (1, 10, 40), 1.05


def main() -> int:
    of_sizes()
    return 0 if of_numbers() else 1


def of_sizes() -> None:
    """A table and a JSON line: megabytes for models of several widths."""
    base = peak([])
    table = Table(title="Peak memory of a worker (fp32, AdamW, batch of 32, 16-pixel images)")
    for column in ("model", "parameters", "peak [MB]", "beyond the libraries, per parameter"):
        table.add_column(column, justify="right")
    found = {}
    for name, width in SIZES.items():
        spec = model(width, depth=4 if name == "demo" else 12)
        count, used = parameters(spec.recipe, 10), peak([spec])
        found[name] = {"parameters": count, "peak_mb": round(used / 1e6)}
        each = f"{(used - base) / count:.1f} bytes" if name != "demo" else ""
        table.add_row(name, f"{count:,}", f"{used / 1e6:.0f}", each)
    Console().print(table)
    line = {"benchmark": "memory", "part": "sizes", "libraries_mb": round(base / 1e6), **found}
    print(json.dumps(line), flush=True)


def of_numbers() -> bool:
    """A table and a JSON line: megabytes after so many tiny models in one process."""
    found = {count: peak([model(64, 4, seed) for seed in range(count)]) for count in MODELS}
    growth = found[MODELS[-1]] / found[MODELS[0]]
    table = Table(title="Peak memory of a worker that trains one tiny ViT after the other")
    for column in ("models", "peak [MB]"):
        table.add_column(column, justify="right")
    for count, used in found.items():
        table.add_row(str(count), f"{used / 1e6:.0f}")
    Console().print(table)
    said = "reached" if growth <= FLAT else "missed"
    print(f"{growth:.3f} times as much after {MODELS[-1]} models: target {said} (at most {FLAT})")
    line = {"benchmark": "memory", "part": "numbers", "growth": round(growth, 4), "target": FLAT}
    line |= {"peak_mb": {count: round(used / 1e6) for count, used in found.items()}}
    print(json.dumps(line | {"reached": growth <= FLAT}), flush=True)
    return growth <= FLAT


def model(width: int, depth: int, seed: int = 0) -> ModelSpec:
    stage: dict[str, Any] = {
        "architecture": {
            "name": "vit",
            "img_size": 16,
            "patch_size": 4,
            "in_chans": 1,
            "embed_dim": width,
            "depth": depth,
            "num_heads": width // 16,
        },
        "data": {"name": "digits", "train_limit": 160},
        "epochs": 2,
        "batch_size": 32,
        "seed": seed,
    }
    return plan(Blueprint.read({"name": "memory", "stages": {"train": stage}})).models[0]


def peak(specs: list[ModelSpec]) -> int:
    """Bytes that a process takes at most which trains these models; none: which could."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_trained, (specs,))


def _trained(specs: list[ModelSpec]) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for spec in specs:
            train(spec, ModelFolder(Path(folder) / spec.id))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
