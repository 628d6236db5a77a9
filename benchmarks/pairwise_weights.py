"""Distances and cosines of all pairs of ViT-S models: time against reading them once, and memory.

Writes synthetic ViT-S checkpoints as a zoo keeps them (families of 8 whose members differ a
little), plain files of 86.8 MB each. Then, for a quarter, half and all of the models, in processes
of their own:

- reading: safetensors' `load_file` of every file, and the sum of every tensor;
- pairs: `weight_l2` and `weight_cosine` of all pairs, whole and per tensor, from the files.

Both once cold (the system was told to forget the files) and once warm. Memory is what the process
has for itself at most (RssAnon, sampled), with the libraries; pages of the files, which are mapped
and which the system takes back when it wants them, are told apart.

    python benchmarks/pairwise_weights.py                  # 64 models, 5.6 GB of disk
    python benchmarks/pairwise_weights.py --models 250     # 21.7 GB
    python benchmarks/pairwise_weights.py --packed         # packed as `grow` leaves them
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from vitarium import create_model
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.zoo import Checkpoint
from vitarium.zoo.checkpoint_folder import CheckpointFolder

RATIO, MEMORY = 3.0, 2 * 1024**3
FAMILY = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--packed", action="store_true", help="leave the checkpoints packed")
    parser.add_argument("--folder", type=Path, help="keep them there, or take what is there")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        if not folder.exists():
            write(folder, args.models, args.packed)
        return 0 if measure(folder, args.models) else 1


def measure(folder: Path, models: int) -> bool:
    """Print a table and a JSON line."""
    table = Table(title=f"All pairs of ViT-S models, {os.cpu_count()} cores", title_justify="left")
    columns = ("models", "files", "reading [s]", "pairs [s]", "ratio", "memory", "mapped")
    for column in columns:
        table.add_column(column, justify="right")
    found: list[dict[str, Any]] = []
    for count in sorted({max(2, models // 4), max(2, models // 2), models}):
        for cache in ("cold", "warm"):
            times = {}
            for what in (reading, pairs):
                if cache == "cold":
                    forget(folder)
                times[what.__name__] = alone(what, folder, count)
            seconds, (anonymous, mapped) = times["pairs"]
            row = {"models": count, "cache": cache, "reading": times["reading"][0]}
            row |= {"pairs": seconds, "ratio": seconds / row["reading"]}
            found.append(row | {"memory": anonymous, "mapped": mapped})
            table.add_row(
                str(count),
                cache,
                f"{row['reading']:.2f}",
                f"{seconds:.2f}",
                f"{row['ratio']:.2f}",
                f"{anonymous / 2**20:.0f} MiB",
                f"{mapped / 2**20:.0f} MiB",
            )
    Console().print(table)
    cold, warm = found[-2:]
    memory = max(row["memory"] for row in found)
    good = cold["ratio"] <= RATIO and memory <= MEMORY
    said = f"{cold['ratio']:.2f} times reading, cold ({warm['ratio']:.2f} warm)"
    target = f"at most {RATIO:.0f} times cold, {MEMORY / 2**20:.0f} MiB"
    judged = "reached" if good else "MISSED"
    print(f"{said}, at {memory / 2**20:.0f} MiB: {judged} ({target})")
    print(json.dumps({"benchmark": "pairwise_weights", "reached": good, "rows": found}), flush=True)
    return good


def write(folder: Path, models: int, packed: bool) -> None:
    """Models of families: a random ViT-S, and noise on it that is 1 % of its size."""
    noise = torch.Generator().manual_seed(0)
    for number in range(models):
        first = number - number % FAMILY
        if number == first:
            torch.manual_seed(number)
            parent = create_model("vit_small_patch16_224", num_classes=100).state_dict()
        weights = {
            name: tensor
            + 0.01 * tensor.std(correction=0) * torch.randn(tensor.shape, generator=noise)
            for name, tensor in parent.items()
        }
        place = CheckpointFolder(folder, _id(number))
        if packed:
            place.write(0, weights, [(_id(first), 0)] if number > first else [])
        else:
            place.write_plain(0, weights)
    os.sync()


def _id(number: int) -> str:
    return f"{number:012x}"


def checkpoints(folder: Path, count: int) -> dict[str, Checkpoint]:
    places = {_id(number): CheckpointFolder(folder, _id(number)) for number in range(count)}
    return {id: Checkpoint(place.path(0), place.find) for id, place in places.items()}


def forget(folder: Path) -> None:
    """Tell the system that the files' pages are not needed."""
    for file in folder.glob("*/checkpoints/*"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(folder: Path, count: int) -> None:
    torch.set_num_threads(1)  # a sum is as fast as the memory, and threads wait for each other
    for checkpoint in checkpoints(folder, count).values():
        packed = checkpoint.is_packed
        weights = checkpoint.state_dict() if packed else load_file(checkpoint.path)
        for tensor in weights.values():
            tensor.sum()


def pairs(folder: Path, count: int) -> None:
    opened = checkpoints(folder, count)
    models = [Weights(f"{id}@0", checkpoint) for id, checkpoint in opened.items()]
    for name in ("weight_l2", "weight_cosine"):
        whole = choose("measure", name)(models)[""]
        if whole.shape != (count, count) or not whole.isfinite().all():
            raise SystemExit(f"{name} gave no matrix of {count} models")


def alone(what: Any, folder: Path, count: int) -> tuple[float, tuple[int, int]]:
    """Seconds, and the most bytes, of a process of its own that does this."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched, (what, folder, count))


def _watched(what: Any, folder: Path, count: int) -> tuple[float, tuple[int, int]]:
    choose("measure", "weight_l2")  # imports what there is to import
    most = [0, 0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for place, bytes_now in enumerate(_memory()):
                most[place] = max(most[place], bytes_now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    what(folder, count)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return seconds, (most[0], most[1])


def _memory() -> tuple[int, int]:
    """Bytes of this process: its own, and pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return tuple(int(values[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile"))  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
