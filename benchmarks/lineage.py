"""Recovering lineage: ViT-S models against reading their files once, and sets of many small ones.

Writes synthetic trees (see `synthetic_trees.py`) as plain safetensors files. Then, in processes of
their own, all from cold files (the system was told to forget them):

- reading: safetensors' `load_file` of every file, and the sum of every tensor;
- recovery: `vitarium.lineage.recover.recover` of the folder, scored against the true parents.

The targets are twice the time of reading and 60 s for ViT-S, and ten minutes for 10,000 models of
117 thousand parameters. Other work on the machine makes seconds longer, not the processor's.

    python benchmarks/lineage.py                                    # 10,000 models, 4.8 GB of disk
    python benchmarks/lineage.py --large --models 250 --trees 10    # ViT-S, 21.7 GB
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from synthetic_trees import write

from vitarium.core.registry import plugins
from vitarium.lineage import recover as recovering

READINGS, BESIDE, MINUTES = 2, 60.0, 10
COLUMNS = ("", "wall [s]", "processor [s]", "memory", "own parents", "roots", "families (ARI)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--large", action="store_true", help="ViT-S/16 in place of a tiny ViT")
    parser.add_argument("--method", default="descent")
    parser.add_argument("--folder", type=Path, help="keep the models there, or take what is there")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        if not folder.exists():
            write(folder, args.models, args.trees, large=args.large)
            os.sync()
        return 0 if measure(folder, args.method, large=args.large) else 1


def measure(folder: Path, method: str, *, large: bool) -> bool:
    """Print a table and a JSON line."""
    models = len(list(folder.glob("*.safetensors")))
    kind = "ViT-S" if large else "small ViTs"
    title = f"{models} {kind}, {os.cpu_count()} cores"
    table = Table(*COLUMNS, title=title, title_justify="left")
    rows = {}
    for what in (reading, recovery):
        forget(folder)
        row = in_own_process(what, folder, method)
        rows[what.__name__] = row
        shares = (f"{row[k]:.4f}" if k in row else "" for k in ("parents", "roots", "families"))
        table.add_row(
            what.__name__,
            f"{row['seconds']:.1f}",
            f"{row['processor']:.1f}",
            f"{row['memory'] / 2**20:.0f} MiB",
            *shares,
        )
    Console().print(table)
    seconds, once = rows["recovery"]["seconds"], rows["reading"]["seconds"]
    allowed = READINGS * once + BESIDE if large else 60.0 * MINUTES
    good = seconds <= allowed
    why = f"{READINGS} times reading and {BESIDE:.0f} s" if large else f"{MINUTES} minutes"
    verdict = "reached" if good else "MISSED"
    print(
        f"{seconds:.1f} s, {seconds / once:.2f} times reading: {verdict} ({why}: {allowed:.1f} s)"
    )
    report = {"benchmark": "lineage", "models": models, "large": large, "method": method}
    print(json.dumps(report | {"reached": good, "rows": rows}), flush=True)
    return good


def reading(folder: Path, method: str) -> dict[str, Any]:
    torch.set_num_threads(1)  # a sum is as fast as the memory, and threads wait for each other
    for path in folder.glob("*.safetensors"):
        for tensor in load_file(path).values():
            tensor.sum()
    return {}


def recovery(folder: Path, method: str) -> dict[str, Any]:
    scores = recovering.recover(folder, method).scores
    if scores is None:
        raise SystemExit(f"{folder} has no table of the true parents")
    return {
        "parents": scores.node_accuracy,
        "roots": scores.root_accuracy,
        "families": scores.adjusted_rand_index,
    }


def forget(folder: Path) -> None:
    """Tell the system that the files' pages are not needed."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_own_process(what: Any, *args: Any) -> dict[str, Any]:
    """What it gives in a process of its own, with its seconds, and the bytes it had at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (what, args))


def _timed(what: Any, args: Any) -> dict[str, Any]:
    plugins("lineage")  # imports them before the time is taken
    started, busy = time.perf_counter(), time.process_time()
    figures = what(*args)
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - busy,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **figures,
    }


if __name__ == "__main__":
    sys.exit(main())
