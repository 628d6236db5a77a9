"""Benchmark: students that learn from stored lessons, against students with a teacher beside them.

A teacher's lessons are written once; then pairs of students of the same recipe and seed are trained
by turns, one with the stored lessons and one with the teacher, so that what else runs slows both
alike. Times of the stored ones include the writing. Training is single, in one process.

    python benchmarks/stored_lessons.py [--students 8] [--epochs 2] [--svg docs/lessons.svg]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from vitarium import Blueprint, Zoo, create_model, plan, write_lessons
from vitarium.blueprint import ModelSpec
from vitarium.training import train
from vitarium.zoo import ModelFolder

TARGET = 0.6
IMAGES: dict[str, Any] = {"img_size": 8, "patch_size": 1, "in_chans": 1}
TEACHER = {**IMAGES, "embed_dim": 128, "depth": 6, "num_heads": 4}
STUDENT = {**IMAGES, "embed_dim": 64, "depth": 3, "num_heads": 4}
ONLINE = {"name": "weight_distillation", "relation_weight": 0, "hidden_weight": 0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        writing, stored, online = measured(Path(folder), args.students, args.epochs)
    with_lessons = [writing + seconds for seconds in accumulate(stored)]
    with_teacher = list(accumulate(online))
    table = Table(title="Seconds of all students up to this one")
    for column in ("students", "teacher beside them", "stored lessons", "ratio"):
        table.add_column(column, justify="right")
    for count, (slow, fast) in enumerate(zip(with_teacher, with_lessons, strict=True), start=1):
        table.add_row(str(count), f"{slow:.1f}", f"{fast:.1f}", f"{fast / slow:.2f}")
    Console().print(table)
    ratio = with_lessons[-1] / with_teacher[-1]
    reached = ratio <= TARGET
    print(f"{args.students} students cost {ratio:.2f} of their time: target {TARGET}", end=" ")
    print("reached" if reached else "missed")
    result = {"benchmark": "stored_lessons", "ratio": ratio, "writing": writing, "reached": reached}
    print(json.dumps(result), flush=True)
    if args.svg:
        draw(args.svg, with_teacher, with_lessons)
    return 0 if reached else 1


def measured(folder: Path, students: int, epochs: int) -> tuple[float, list[float], list[float]]:
    """Seconds of writing the lessons, of each student with them, and of each with the teacher."""
    zoo = Zoo.create(folder / "zoo")
    torch.manual_seed(0)
    teacher = create_model("vit", num_classes=10, **TEACHER)
    weights = folder / "teacher.pth"
    torch.save(teacher.state_dict(), weights)
    source = {
        "teacher": str(weights),
        "teacher_architecture": {"name": "vit", **TEACHER},
    }
    lessons = {"name": "stored_lessons", "lessons": str(folder / "lessons"), **source}
    with_lessons = blueprint(lessons, students, epochs)
    writing = seconds(lambda: write_lessons(with_lessons, zoo, device="cpu"))
    stored_specs = plan(with_lessons).models
    online_specs = plan(blueprint({**ONLINE, **source}, students, epochs)).models
    stored, online = [], []
    for first, second in zip(stored_specs, online_specs, strict=True):
        stored.append(seconds(lambda spec=first: run(spec, zoo)))  # type: ignore[misc]
        online.append(seconds(lambda spec=second: run(spec, zoo, teacher)))  # type: ignore[misc]
    return writing, stored, online


def blueprint(objective: dict[str, Any], students: int, epochs: int) -> Blueprint:
    stage = {
        "architecture": {"name": "vit", **STUDENT},
        "data": {"name": "digits", "train_limit": 500},
        "augmentation": {"name": "standard", "crop": "random", "padding": 1, "mixup": 0.8},
        "objective": objective,
        "epochs": epochs,
        "batch_size": 50,
        "checkpoints": "last",
        "grid": {"seed": list(range(students))},
    }
    return Blueprint.read({"name": "lessons", "stages": {"student": stage}})


def run(spec: ModelSpec, zoo: Zoo, teacher: nn.Module | None = None) -> None:
    train(spec, ModelFolder(zoo.path / "models" / spec.id), teacher=teacher)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def draw(path: Path, with_teacher: list[float], with_lessons: list[float]) -> None:
    """Time of one student, two, and so on, by both."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "vitarium", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    students = range(1, len(with_teacher) + 1)
    unit = with_teacher[0]
    for name, times, color in (
        ("teacher beside each student", with_teacher, "#9a6700"),
        ("stored lessons, with the writing", with_lessons, "#1f6feb"),
    ):
        axes.plot(students, [each / unit for each in times], "o-", color=color, label=name)
    axes.set(xlabel="students", ylabel="time (one student with a teacher: 1)", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
