"""Benchmark 2: what growing costs beyond forward, backward and optimizer, for the demo's tiny ViT.

Trains a model of the demo as `vitarium grow` does, with a clock around every forward, backward and
optimizer step and around the forward passes of scoring; what is left of the wall time is reading,
augmenting, scoring's own work, writing and set-up. The bare steps on batches that lie ready are
timed in the same run, as a check on the clocks, and compared with what the core can multiply at
best: that is the limit. Medians of several rounds, in turn.

    python benchmarks/loop_overhead.py
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.data.load import load
from vitarium.data.loader import Batches
from vitarium.training import TrainOptions, train
from vitarium.training._onednn_linear import linear
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

ROUNDS, TARGET = 3, 0.05
STAGES = ("pretrain", "scratch")


@dataclass
class Clock:
    """Seconds inside of some functions, of which none counts twice where they call each other."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: bool = False

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, started = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                spent = time.perf_counter() - started
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        return timed


def main() -> int:
    torch.set_num_threads(1)
    reached = [measure(stage) for stage in STAGES]
    return 0 if all(reached) else 1


def measure(stage: str) -> bool:
    """Print a table and a JSON line for the first supervised model of a stage."""
    spec = model_to_train(stage)
    load(spec.recipe.data)
    whole(spec)  # once for whatever is loaded at first use
    rounds = [(bare(spec), *whole(spec)) for _ in range(ROUNDS)]
    share = statistics.median(1 - sum(clock.seconds.values()) / total for _, total, clock in rounds)
    alone, total = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    steps, scoring = (
        statistics.median(clock.seconds[name] for _, _, clock in rounds)
        for name in ("steps", "scoring")
    )
    table = Table(title=f"Demo ViT, {stage}, one thread, median of {ROUNDS}")
    columns = ("whole [s]", "steps [s]", "steps alone [s]", "forward of scoring [s]", "outside")
    for column in columns:
        table.add_column(column, justify="right")
    table.add_row(*(f"{v:.2f}" for v in (total, steps, alone, scoring)), f"{share:.1%}")
    Console().print(table)
    work, peak = products(spec) / alone, peak_of_core()
    print(
        f"steps alone: {work / 1e9:.0f} GFLOP/s in matrix products, {work / peak:.0%} of the "
        f"{peak / 1e9:.0f} that a large product reaches"
    )
    said = "reached" if share <= TARGET else "missed"
    print(f"{share:.1%} of the time is outside: target {said} ({TARGET:.0%} at most)")
    line = {"benchmark": "loop_overhead", "stage": stage, "whole_s": total, "steps_s": steps}
    line |= {"steps_alone_s": alone, "scoring_forward_s": scoring, "outside": share}
    line |= {"share_of_peak": work / peak}
    print(json.dumps(line | {"target": TARGET, "reached": share <= TARGET}), flush=True)
    return share <= TARGET


def model_to_train(stage: str) -> ModelSpec:
    models = plan(Blueprint.load("demo")).of_stage(stage)
    return next(model for model in models if model.recipe.objective.name == "supervised")


def bare(spec: ModelSpec) -> float:
    """Seconds of the steps alone."""
    recipe, data = spec.recipe, load(spec.recipe.data)
    size = recipe.architecture.config.input_size
    augmentation = recipe.augmentation(size, data.num_classes)
    ready = list(Batches(data, augmentation, size, recipe.batch_size, recipe.seed).train(1))
    model = recipe.build(data.num_classes).train()
    optimize_forward(model, TrainOptions())
    optimizer = recipe.optimizer(model.parameters())
    started = time.perf_counter()
    for _ in range(recipe.epochs):
        for batch in ready:
            optimizer.zero_grad()
            recipe.objective(model, batch).value.backward()
            optimizer.step()
    return time.perf_counter() - started


def products(spec: ModelSpec) -> float:
    """Floating-point operations of the matrix products in the forward and backward passes of it."""
    recipe, data = spec.recipe, load(spec.recipe.data)
    images = torch.randn(recipe.batch_size, *recipe.architecture.config.input_size)
    model = recipe.build(data.num_classes).train()
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return recipe.epochs * (len(data.train) // recipe.batch_size) * counter.get_total_flops()


def peak_of_core(size: int = 1024, repeats: int = 20) -> float:
    """Floating-point operations per second of a large product, by whichever library is faster."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    fastest = float("inf")
    with torch.no_grad():
        for product in (F.linear, linear):
            for _ in range(repeats):
                started = time.perf_counter()
                product(left, right)
                fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def whole(spec: ModelSpec) -> tuple[float, Clock]:
    """Seconds of the training with all that belongs to it, and what the clocks say."""
    with tempfile.TemporaryDirectory() as folder, clocks() as clock:
        started = time.perf_counter()
        train(spec, ModelFolder(Path(folder) / spec.id))
        return time.perf_counter() - started, clock


@contextmanager
def clocks() -> Iterator[Clock]:
    clock = Clock()
    step, forward = Trainer.step, VisionTransformer.forward
    with (
        patch.object(Trainer, "step", clock.around("steps", step)),
        patch.object(VisionTransformer, "forward", clock.around("scoring", forward)),
    ):
        yield clock


if __name__ == "__main__":
    sys.exit(main())
