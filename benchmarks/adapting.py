"""Benchmark: what adaptations cost beside full fine-tuning: images per second, memory, and bytes.

Steps of a ViT-S (224 pixels, AdamW, fp32) are timed in turns in one process, so that what else runs
slows all of them alike; the peak of memory is that of a process of its own, less what it had before
the model was built. Bytes are those of a checkpoint of a child that was trained for a step.

    python benchmarks/adapting.py [--batch-size 8] [--rounds 5] [--threads 2]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from vitarium.blueprint import Recipe
from vitarium.core.memory import keep_freed_memory
from vitarium.data.batch import Batch
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.options import TrainOptions
from vitarium.training.parameter_groups import parameter_groups

ADAPTATIONS: dict[str, Any] = {
    "full": "full",
    "lora": {"name": "lora"},
    "norms": "norms",
    "last_blocks": "last_blocks",
    "head": "head",
}
CLASSES = 100
SPEED_TARGET, MEMORY_TARGET = 1.25, 0.6
"""Of LoRA, as multiples of full fine-tuning."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", choices=ADAPTATIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_of(args.memory_of, args.batch_size))
        return 0
    models = {name: Training(name, args.batch_size) for name in ADAPTATIONS}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(args.rounds + 1):
        for name, training in models.items():
            elapsed = training.step()
            if number:  # the first one warms up
                seconds[name].append(elapsed)
    memory = {name: measured_apart(name, args) for name in models}
    return 0 if report(seconds, memory, args.batch_size, models) else 1


class Training:
    """A ViT-S that is trained by an adaptation, on noise."""

    def __init__(self, adaptation: str, batch_size: int) -> None:
        self.recipe = Recipe.read(
            {
                "architecture": {
                    "name": "vit",
                    "embed_dim": 384,
                    "depth": 12,
                    "num_heads": 6,
                },
                "data": "cifar100",
                "epochs": 1,
                "batch_size": batch_size,
                "optimizer": "adamw",
                "adaptation": ADAPTATIONS[adaptation],
            }
        )
        self.model = self.recipe.build_unadapted(CLASSES)
        self.recipe.adapt(self.model)
        optimize_forward(self.model, TrainOptions())
        self.model.train()
        if self.recipe.adaptation.facts["frozen_in_eval_mode"]:
            self.model.eval()
        self.optimizer = self.recipe.optimizer(parameter_groups(self.model, self.recipe))
        labels = torch.arange(batch_size) % CLASSES
        images = torch.randn(batch_size, 3, 224, 224)
        self.batch = Batch(images, labels, F.one_hot(labels, CLASSES).float())
        self.trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def step(self) -> float:
        started = time.perf_counter()
        loss = self.recipe.objective(self.model, self.batch)
        self.optimizer.zero_grad()
        loss.value.backward()
        self.optimizer.step()
        return time.perf_counter() - started


def peak_of(adaptation: str, batch_size: int) -> float:
    """Megabytes that building a model and three steps add to the process."""
    keep_freed_memory()  # as where models are trained
    torch.ones(512, 512) @ torch.ones(512, 512)
    before = peak()
    training = Training(adaptation, batch_size)
    for _ in range(3):
        training.step()
    return peak() - before


def peak() -> float:
    """Not ru_maxrss, which a process inherits from the one that starts it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def measured_apart(adaptation: str, args: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--memory-of", adaptation]
    command += ["--batch-size", str(args.batch_size), "--threads", str(args.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(
    seconds: dict[str, list[float]],
    memory: dict[str, float],
    batch_size: int,
    models: dict[str, Training],
) -> bool:
    """Print a table and a JSON line."""
    speed = {
        name: statistics.median(
            full / each for full, each in zip(seconds["full"], times, strict=True)
        )
        for name, times in seconds.items()
    }
    share = {name: used / memory["full"] for name, used in memory.items()}
    table = Table(title=f"ViT-S, 224 pixels, batches of {batch_size}")
    for column in ("adaptation", "trained [thousand]", "images/s", "times full", "MB", "of full"):
        table.add_column(column, justify="left" if column == "adaptation" else "right")
    for name, times in seconds.items():
        rate = batch_size / statistics.median(times)
        trained = f"{models[name].trained / 1000:,.0f}"
        row = (f"{rate:.1f}", f"{speed[name]:.2f}", f"{memory[name]:,.0f}", f"{share[name]:.2f}")
        table.add_row(name, trained, *row)
    Console().print(table)
    reached = speed["lora"] >= SPEED_TARGET and share["lora"] <= MEMORY_TARGET
    verdict = "reached" if reached else "missed"
    print(
        f"LoRA: {speed['lora']:.2f} times the images a second of full fine-tuning, "
        f"{share['lora']:.2f} of its memory: target {verdict} ({SPEED_TARGET}, {MEMORY_TARGET})"
    )
    values = {"speed": speed, "memory_mb": memory, "reached": reached}
    print(json.dumps({"benchmark": "adapting", **values}), flush=True)
    return reached


if __name__ == "__main__":
    sys.exit(main())
