"""Benchmark: what multiplexed models cost and save, against plain ones of the same shape.

`--part cost`: forward, and forward with backward, of Mini-DeiT-S at 224 pixels, whole and with each
transformation left out, against the plain model (no class token, mean of the tokens) without and
with SDPA; the target is 1.10 times as long as without SDPA. `--part training`: images per second
with AdamW's step, against timm's deit_small_patch16_224. `--part memory`: what the single-set
DeiT-B takes against DeiT-B, each in a fresh process. With `--compile` the cost of compiled models,
too. What is compared runs in turns, and ratios are those of medians.

    python benchmarks/multiplexing.py
    python benchmarks/multiplexing.py --part cost --batch 2 --rounds 3 --threads 1
    python benchmarks/multiplexing.py --part cost --depth 2 --compile
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.core.memory import keep_freed_memory
from vitarium.core.registry import get

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TARGET = 1.10
LEFT_OUT: dict[str, dict[str, Any]] = {
    "Mini-DeiT-S": {},
    "  no mixing before": {"mix_before": False},
    "  no mixing after": {"mix_after": False},
    "  no positions": {"relative_positions": None},
    "  shared weights only": {
        "mix_before": False,
        "mix_after": False,
        "relative_positions": None,
    },
}
PLAIN, FUSED = "plain, no SDPA", "plain, SDPA"

Times = dict[str, dict[str, float]]
"""Seconds by the model's name: "forward" and "both", medians."""


def main() -> int:
    args = _arguments()
    keep_freed_memory()  # as where vitarium trains
    parts: dict[str, Callable[[argparse.Namespace], bool]] = {
        "cost": cost,
        "training": training,
        "memory": memory,
    }
    reached = [parts[name](args) for name in (parts if args.part == "all" else [args.part])]
    return 0 if all(reached) else 1


def _arguments() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["cost", "training", "memory", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128 if DEVICE == "cuda" else 4)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12, help="of what is compared in its cost")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, cores or 1)}))
    parser.add_argument("--compile", action="store_true", help="compile the models, too: minutes")
    return parser.parse_args()


def cost(args: argparse.Namespace) -> bool:
    """Tables and JSON lines: a forward, and a forward with a backward, of each model."""
    images = torch.randn(args.batch, 3, args.img_size, args.img_size, device=DEVICE)
    models = {
        name: plain(args.img_size, args.depth, fused=name == FUSED) for name in (PLAIN, FUSED)
    }
    models |= {
        name: mini("small", args.img_size, depth=args.depth, **factors).to(DEVICE)
        for name, factors in LEFT_OUT.items()
    }
    reached = True
    for setting, times in _in_settings(args, models, images):
        ratio = times["Mini-DeiT-S"]["both"] / times[PLAIN]["both"]
        _show_cost(setting, times)
        said = "reached" if ratio <= TARGET else "missed"
        print(f"{ratio:.3f} times as long as without SDPA: target {said} (at most {TARGET})")
        line: dict[str, Any] = {"benchmark": "multiplexing", "part": "cost", **setting}
        line |= {"ratio": round(ratio, 4), "target": TARGET, "reached": ratio <= TARGET}
        print(json.dumps(line | {"seconds": times}), flush=True)
        reached = reached and ratio <= TARGET
    return reached


def _in_settings(
    args: argparse.Namespace, models: dict[str, nn.Module], images: Tensor
) -> list[tuple[dict[str, Any], Times]]:
    if args.compile:
        chosen = {name: models[name] for name in (PLAIN, FUSED, "Mini-DeiT-S")}
        compiled = {f"{name}, compiled": torch.compile(each) for name, each in chosen.items()}
        models = models | compiled
    if DEVICE == "cuda":
        return [
            ({"precision": precision}, timed(models, images, args.rounds, bf16=precision == "bf16"))
            for precision in ("fp32", "bf16")
        ]
    found = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        found.append(({"threads": threads}, timed(models, images, args.rounds)))
    return found


def timed(
    models: dict[str, nn.Module], images: Tensor, rounds: int, *, bf16: bool = False
) -> Times:
    """Medians of so many rounds in turns, after one that is not counted."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"forward": [], "both": []} for name in models
    }
    precision = torch.autocast(DEVICE, torch.bfloat16) if bf16 else nullcontext()
    for _ in range(rounds + 1):
        for name, model in models.items():
            started = clock()
            with precision:
                loss = model(images).square().mean()
            between = clock()
            loss.backward()
            ended = clock()
            model.zero_grad()
            found[name]["forward"].append(between - started)
            found[name]["both"].append(ended - started)
    return {
        name: {part: statistics.median(values[1:]) for part, values in each.items()}
        for name, each in found.items()
    }


def clock() -> float:
    """Seconds; with one thread those of this process, so that what else runs does not count."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def plain(img_size: int, depth: int, *, fused: bool) -> nn.Module:
    """DeiT-S's shape without a class token, as Mini-DeiT-S."""
    model = VisionTransformer(
        img_size=img_size,
        embed_dim=384,
        depth=depth,
        num_heads=6,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model.to(DEVICE)


def mini(size: str, img_size: int = 224, **factors: Any) -> nn.Module:
    found = get("architecture", "mini_deit")
    preset = found.facts["presets"][f"mini_deit_{size}_patch16_224"]
    config = found.config.model_validate({**preset, "img_size": img_size, **factors})
    model: nn.Module = found.function(config, 1000)
    return model


def _show_cost(setting: dict[str, Any], times: Times) -> None:
    said = ", ".join(f"{value} {name}" for name, value in setting.items())
    table = Table(title=f"A batch through Mini-DeiT-S and the plain model ({said})")
    table.add_column("")
    for column in ("forward [ms]", "and backward [ms]", "forward, times", "and backward, times"):
        table.add_column(column, justify="right")
    for name, each in times.items():
        ratios = (f"{each[part] / times[PLAIN][part]:.3f}" for part in ("forward", "both"))
        seconds = (f"{1e3 * each[part]:.0f}" for part in ("forward", "both"))
        table.add_row(name, *seconds, *ratios)
    Console(width=100).print(table)


def training(args: argparse.Namespace) -> bool:
    """A table and a JSON line: images per second of training steps."""
    torch.set_num_threads(max(args.threads))
    images = torch.randn(args.batch, 3, args.img_size, args.img_size, device=DEVICE)
    name = "deit_small_patch16_224"
    models = {
        name: timm.create_model(name, img_size=args.img_size).to(DEVICE),
        "mini_deit_small_patch16_224": mini("small", args.img_size).to(DEVICE),
    }
    optimizers = {name: torch.optim.AdamW(each.parameters()) for name, each in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.rounds + 1):
        for name, model in models.items():
            started = clock()
            _step(model, optimizers[name], images)
            seconds[name].append(clock() - started)
    speeds = {name: args.batch / statistics.median(each[1:]) for name, each in seconds.items()}
    table = Table(title=f"Training steps, batch of {args.batch}, {max(args.threads)} threads")
    table.add_column("")
    table.add_column("images per second", justify="right")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.1f}")
    Console(width=100).print(table)
    line = {"benchmark": "multiplexing", "part": "training", "images_per_second": speeds}
    print(json.dumps(line), flush=True)
    return True


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor) -> None:
    model(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def memory(args: argparse.Namespace) -> bool:
    """A table and a JSON line: bytes of the single-set DeiT-B and of DeiT-B."""
    found = {}
    for name in ("DeiT-B", "single-set DeiT-B"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(_taken, (name, args.img_size))
    table = Table(title="One training step with AdamW, a batch of 2 [MB]")
    for column in ("", *found["DeiT-B"]):
        table.add_column(column, justify="right" if column else "left")
    for name, each in found.items():
        table.add_row(name, *(f"{value / 1e6:,.1f}" for value in each.values()))
    pairs = zip(*(each.values() for each in found.values()), strict=True)
    table.add_row("times less", *(f"{whole / single:.2f}" for whole, single in pairs))
    Console(width=100).print(table)
    line = {"benchmark": "multiplexing", "part": "memory", "bytes": found}
    print(json.dumps(line), flush=True)
    return True


def _taken(name: str, img_size: int) -> dict[str, int]:
    """Bytes, run in a process of its own; the peak is what it takes beyond its libraries."""
    before = _peak()
    if name == "DeiT-B":
        model = timm.create_model("deit_base_patch16_224", img_size=img_size).to(DEVICE)
    else:
        model = mini("base_single", img_size).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, img_size, img_size, device=DEVICE)).square().mean().backward()
    gradients = sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    optimizer.step()
    peak = _peak() - before
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated()
    parameters = sum(each.nbytes for each in model.parameters())
    states = (value for state in optimizer.state.values() for value in state.values())
    with tempfile.TemporaryDirectory() as folder:
        save_file(model.state_dict(), Path(folder) / "model.safetensors")
        on_disk = (Path(folder) / "model.safetensors").stat().st_size
    return {
        "parameters": parameters,
        "gradients": gradients,
        "optimizer": sum(each.nbytes for each in states),
        "peak": peak,
        "checkpoint": on_disk,
    }


def _peak() -> int:
    """Bytes that this process had in memory at most.

    On Linux not from getrusage, where a process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
