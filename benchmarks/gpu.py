"""Benchmark 4, on a CUDA device: large models one at a time, tiny ones stacked.

`--part vit-s`: images per second of fine-tuning ViT-S/16 at 224 pixels, against the reference
recipe at its best number of loader workers, and the share of the device's measured bf16 matrix peak
that is used (model FLOPs utilization, MFU). `--part stack`: 64 tiny ViTs of the demo's shape, as
one stack against one after the other, in models per hour. Ratios in one run, medians of rounds.

    python benchmarks/gpu.py
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reference_recipe import Setting, train_speed
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import vitarium
from vitarium import Blueprint
from vitarium.blueprint import ModelSpec
from vitarium.training import Task, TrainOptions, train, train_together
from vitarium.zoo import ModelFolder

DEVICE = "cuda:0"
SPEED_TARGET, MFU_TARGET, STACK_TARGET = 5.0, 0.4, 20.0
MODELS = 64


def main() -> int:
    args = _arguments()
    if not torch.cuda.is_available():
        print("no CUDA device")
        return 0
    Console().print(torch.cuda.get_device_name(DEVICE))
    parts: dict[str, Callable[[int], bool]] = {"vit-s": vit_s, "stack": stack}
    chosen = parts if args.part == "all" else [args.part]
    reached = [parts[name](args.rounds) for name in chosen]
    return 0 if all(reached) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["vit-s", "stack", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def vit_s(rounds: int) -> bool:
    """Images per second, ours and the reference's, and MFU."""
    from growing import vit_s_blueprint, write_images

    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        write_images(Path(name) / "images", 1024)
        blueprint = vit_s_blueprint(Path(name) / "images", 3, batch_size=256)
        spec = vitarium.plan(blueprint).models[0]
        cores = len(os.sched_getaffinity(0))
        settings = [Setting(1, cores, n, "cuda") for n in sorted({3, 6, cores})]
        setting = max(settings, key=lambda s: train_speed(spec, 10, s, warm_up=3))
        pairs = [
            (train_speed(spec, 20, setting, warm_up=5), our_speed(spec, Path(name)))
            for _ in range(rounds)
        ]
    reference, ours = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    flops, most = flops_per_image(spec), matrix_peak()
    mfu = ours * flops / most
    table = Table(title=f"ViT-S/16, 224 px, batch of 256, {rounds} rounds")
    for column in ("", "images per second", "MFU"):
        table.add_column(column, justify="right")
    table.add_row(f"reference ({setting})", f"{reference:.0f}", f"{reference * flops / most:.1%}")
    table.add_row("vitarium", f"{ours:.0f}", f"{mfu:.1%}")
    Console().print(table)
    facts = {"images_per_second": {"reference": reference, "vitarium": ours}, "mfu": mfu}
    facts |= {"matrix_peak_tflops": most / 1e12, "reference_setting": str(setting)}
    fast = _conclude("vit-s", "times as fast", ratio, SPEED_TARGET, facts)
    return _conclude("vit-s", "of the matrix peak", mfu, MFU_TARGET, facts) and fast


def our_speed(spec: ModelSpec, folder: Path) -> float:
    """Images per second of one model's training with our choices, after the first epoch."""
    from vitarium.engine.tuning.calibration import Calibration, TrainMode

    outputs, threads = 10, torch.get_num_threads()
    calibration = Calibration(DEVICE, threads)
    modes = [
        TrainMode(precision, compiled)
        for precision in ("fp32", "bf16")
        for compiled in (False, True)
    ]
    best = min(modes, key=lambda mode: calibration.speed(spec.recipe, outputs, mode).per_image)
    options = TrainOptions(
        DEVICE, precision=best.precision, compiled=best.compiled, deterministic=False
    )
    with tempfile.TemporaryDirectory(dir=folder) as place:
        own = ModelFolder(Path(place) / spec.id)
        train(spec, own, options=options)
        epochs = own.epochs()[2:]
    return statistics.median(epoch.metrics["images_per_second"] for epoch in epochs)


def flops_per_image(spec: ModelSpec) -> float:
    """Floating point operations of forward and backward, counted by torch."""
    model = spec.recipe.build(10).to(DEVICE)
    size = spec.recipe.architecture.config.input_size
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(8, *size, device=DEVICE)).sum().backward()
    return counter.get_total_flops() / 8


def matrix_peak(size: int = 8192, times: int = 50) -> float:
    """Floating point operations per second of a large bf16 matrix product."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        a @ b
    torch.cuda.synchronize()
    return 2 * size**3 * times / (time.perf_counter() - started)


def stack(rounds: int) -> bool:
    """Models per hour, stacked and one after the other."""
    specs = tiny_models(MODELS)
    options = TrainOptions(DEVICE, deterministic=False)
    few = 4
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        pairs = []
        for number in range(rounds + 1):
            place = Path(name) / str(number)
            started = time.perf_counter()
            for spec in specs[:few]:
                train(spec, ModelFolder(place / "alone" / spec.id), options=options)
            alone = (time.perf_counter() - started) / few
            started = time.perf_counter()
            tasks = [Task(spec, ModelFolder(place / "stack" / spec.id)) for spec in specs]
            train_together(tasks, options=options)
            pairs.append((alone, (time.perf_counter() - started) / MODELS))
    pairs = pairs[1:]  # the first one loads and tunes
    alone, stacked = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    ratio = statistics.median(one / all_of_them for one, all_of_them in pairs)
    table = Table(title=f"{MODELS} tiny ViTs, {rounds} rounds")
    for column in ("", "models per hour"):
        table.add_column(column, justify="right")
    table.add_row("one after the other", f"{3600 / alone:.0f}")
    table.add_row("stacked", f"{3600 / stacked:.0f}")
    Console().print(table)
    facts = {"models": MODELS, "seconds_per_model": {"alone": alone, "stacked": stacked}}
    return _conclude("stack", "times the models per hour", ratio, STACK_TARGET, facts)


def tiny_models(count: int) -> list[ModelSpec]:
    """The demo's shape on scikit-learn's digits, with different seeds and rates."""
    stage: dict[str, Any] = {
        "architecture": {
            "name": "vit",
            "img_size": 16,
            "patch_size": 4,
            "in_chans": 1,
            "embed_dim": 64,
            "depth": 4,
            "num_heads": 4,
        },
        "data": "digits",
        "augmentation": {"name": "standard", "crop": "random", "padding": 1},
        "epochs": 8,
        "batch_size": 32,
        "grid": {"seed": list(range(count // 4)), "optimizer.lr": [3e-3, 1e-3, 3e-4, 1e-4]},
    }
    read = Blueprint.read({"name": "stack", "stages": {"train": stage}})
    return list(vitarium.plan(read).models)


def _conclude(part: str, unit: str, value: float, target: float, facts: dict[str, Any]) -> bool:
    reached = value >= target
    print(f"{value:.2f} {unit}: target {'reached' if reached else 'missed'} ({target})")
    line = {"benchmark": "gpu", "part": part, "what": unit, "value": value, "target": target}
    print(json.dumps({**line, "reached": reached, **facts}), flush=True)
    return reached


if __name__ == "__main__":
    sys.exit(main())
