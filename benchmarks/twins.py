"""Benchmark: how much faster efficient twins of ViT-S/16 at 224 pixels are than the plain model.

Original and twin run in turns, image by image; a row is the median of the ratios of pairs of runs,
with its quartiles. Targets: EViT that keeps 70 % of its patches is 1.35 times as fast, ToMe with
r = 13 1.5 times, half of all heads and hidden units 1.7 times, integers of 8 bits 1.2 times (on
CPUs with instructions for them); what reduces nothing takes at most 5 % longer. A twin is an
architecture with the original's weights as far as they fit: speed does not depend on the others.
Operations are those in floating point: products of integers do not count.

    python benchmarks/twins.py
    python benchmarks/twins.py --threads 1 --batch 8 --runs 10 --only "ToMe, r = 13"

Prints a table, and a JSON line per row. Ends with 1 where a target is missed.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitarium.core.registry import choose
from vitarium.engine.tuning.gain import Gain
from vitarium.evaluation.latency import paired_seconds, threads

OUTPUTS = 1000
WIDTH, DEPTH, HEADS = 384, 12, 6
VIT_S: Mapping[str, Any] = {"img_size": 224, "patch_size": 16, "embed_dim": WIDTH}
VIT_S = {**VIT_S, "depth": DEPTH, "num_heads": HEADS}
UNCHANGED = 1 / 1.05


@dataclass(frozen=True)
class Twin:
    """An architecture, its settings beside those of ViT-S/16, and how many times as fast as the
    original it is to be; None: no target."""

    architecture: str
    settings: Mapping[str, Any]
    target: float | None = None


TWINS: Mapping[str, Twin] = {
    "EViT, keep 70 %": Twin("evit", {"keep_rate": 0.7}, 1.35),
    "ToMe, r = 13": Twin("tome", {"r": 13}, 1.5),
    "MCTF, r = 16": Twin("mctf", {"r": 16}),
    "MCTF, 35 % in three blocks": Twin("mctf", {"fused_share": 0.35}),
    "half of heads and MLPs": Twin(
        "uneven_vit",
        {"heads": [HEADS // 2] * DEPTH, "head_dim": 64, "hidden": [2 * WIDTH] * DEPTH},
        1.7,
    ),
    "8 bits of weights and activations": Twin("quantized_vit", {"execution": "int8"}, 1.2),
    "EViT that keeps all": Twin("evit", {"keep_rate": 1.0}, UNCHANGED),
    "ToMe, r = 0": Twin("tome", {"r": 0}, UNCHANGED),
    "MCTF, r = 0": Twin("mctf", {"r": 0}, UNCHANGED),
}


def built(twin: Twin) -> nn.Module:
    """The model, with random weights from seed 0."""
    torch.manual_seed(0)
    model: nn.Module = choose("architecture", twin.architecture, **VIT_S, **twin.settings)(OUTPUTS)
    return model.eval()


def with_weights(model: nn.Module, original: nn.Module) -> nn.Module:
    """The model with the tensors of the original that have its names and shapes."""
    kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    weights = original.state_dict().items()
    fitting = {name: t for name, t in weights if (t.shape, t.dtype) == kinds.get(name)}
    model.load_state_dict(fitting, strict=False)
    return model


def operations(model: nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of a forward pass of images [batch, c, h, w]."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return counter.get_total_flops()


def compared(twin: Twin, original: nn.Module, args: argparse.Namespace) -> dict[str, Any]:
    """A row: milliseconds of a batch, how many times as fast, and the share of operations."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, 224, 224, generator=generator).to(args.device)
    model = with_weights(built(twin), original).to(args.device)
    with threads(args.threads):
        pairs = paired_seconds(original, model, images, args.runs)
    gain = Gain.of(before / after for before, after in pairs)
    before, after = (1e3 * statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return {
        "milliseconds_before": before,
        "milliseconds": after,
        "times_as_fast": gain.median,
        "quartiles": [gain.low, gain.high],
        "operations": operations(model, images) / operations(original, images),
        "target": twin.target,
        "reached": None if twin.target is None else gain.median >= twin.target,
    }


def show(rows: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> None:
    where = f"{args.device}, {args.threads} threads, {args.batch} images, {args.runs} pairs"
    table = Table(title=f"Twins of ViT-S/16 at 224 pixels ({where})")
    for column in ("twin", "operations", "ms before", "ms", "times as fast", "target"):
        table.add_column(column, justify="left" if column == "twin" else "right")
    for name, row in rows.items():
        low, high = row["quartiles"]
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        missed = "" if row["reached"] in (None, True) else " missed"
        table.add_row(
            name,
            f"{row['operations']:.0%}",
            f"{row['milliseconds_before']:.1f}",
            f"{row['milliseconds']:.1f}",
            f"{row['times_as_fast']:.2f} ({low:.2f} to {high:.2f})",
            target + missed,
        )
    Console(width=110).print(table)


def main() -> int:
    args = parsed()
    original = built(Twin("vit", {})).to(args.device)
    rows = {}
    for name in args.only or TWINS:
        rows[name] = compared(TWINS[name], original, args)
        about = {"benchmark": "twins", "twin": name, "threads": args.threads, "batch": args.batch}
        print(json.dumps(about | rows[name]), flush=True)
    show(rows, args)
    return 1 if any(row["reached"] is False for row in rows.values()) else 0


def parsed() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TWINS, metavar="TWIN", help="some rows")
    parser.add_argument("--runs", type=int, default=40, help="pairs of runs")
    parser.add_argument("--batch", type=int, default=1, help="images in a run")
    parser.add_argument("--threads", type=int, default=min(2, cores or 1))
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
