"""What growing costs beyond forward, backward and optimizer step, for the demo's tiny ViT.

Trains one model of the demo as `vitarium grow` does, and in the same run the bare steps on batches
that lie ready; prints a table and a JSON line. Medians of several rounds, the two in turn.

    python benchmarks/loop_overhead.py
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.data.batches import Batches
from vitarium.data.dataset import load
from vitarium.store import ModelFolder
from vitarium.training import train

ROUNDS, EPOCHS = 5, 2


def model_to_train() -> ModelSpec:
    """The demo's first supervised pre-training, cut short."""
    models = plan(Blueprint.load("demo")).models
    first = next(model for model in models if model.recipe.objective.name == "supervised")
    return first.model_copy(update={"recipe": first.recipe.model_copy(update={"epochs": EPOCHS})})


def bare(spec: ModelSpec) -> float:
    """Seconds of the steps alone."""
    recipe, data = spec.recipe, load(spec.recipe.data)
    size = recipe.architecture.config.input_size
    augmentation = recipe.augmentation(size, data.num_classes)
    ready = list(Batches(data, augmentation, size, recipe.batch_size, recipe.seed).train(1))
    model = recipe.build(data.num_classes).train()
    optimizer = recipe.optimizer(model.parameters())
    started = time.perf_counter()
    for _ in range(EPOCHS):
        for batch in ready:
            optimizer.zero_grad()
            recipe.objective(model, batch).value.backward()
            optimizer.step()
    return time.perf_counter() - started


def whole(spec: ModelSpec) -> float:
    """Seconds of the same training with reading, augmenting, scoring and writing."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(spec, ModelFolder(Path(folder) / spec.id))
        return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(1)
    spec = model_to_train()
    load(spec.recipe.data)
    pairs = [(bare(spec), whole(spec)) for _ in range(ROUNDS)]
    steps, total = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    ratio = statistics.median(total / steps for steps, total in pairs)
    table = Table(title=f"Demo ViT, {EPOCHS} epochs, one thread, median of {ROUNDS}")
    for column in ("steps alone [s]", "whole training [s]", "ratio", "share outside the steps"):
        table.add_column(column, justify="right")
    table.add_row(f"{steps:.2f}", f"{total:.2f}", f"{ratio:.3f}", f"{1 - 1 / ratio:.1%}")
    Console().print(table)
    print(
        json.dumps(
            {"benchmark": "loop_overhead", "steps_s": steps, "whole_s": total, "ratio": ratio}
        )
    )


if __name__ == "__main__":
    main()
