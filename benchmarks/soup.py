"""Soups of ViT-S models: the uniform one against reading the files once, and the greedy one.

Takes synthetic ViT-S checkpoints as a zoo keeps them (see `pairwise_weights.py`), plain files of
86.8 MB each. In processes of their own:

- reading: safetensors' `load_file` of every file, and the sum of every tensor;
- uniform: the operator `uniform_soup`, all tensors of the result in memory;
- greedy (of at most 16, with two images): how often it reads each byte, and its memory.

Reading and the uniform soup are run cold (the system was told to forget the files), for which the
target is, and warm, the best of some repetitions each, taking turns. Memory is what the process has
for itself at most (RssAnon, sampled) beyond a process that has only imported the libraries; pages
of the files, which are mapped and which the system takes back when it wants them, do not count.

    python benchmarks/soup.py                  # 16 models, 1.4 GB of disk
    python benchmarks/soup.py --models 64      # 5.6 GB
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pairwise_weights import alone, checkpoints, forget, reading, write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vitarium import create_model
from vitarium.core.registry import choose, plugins, section
from vitarium.data.base import Dataset, Split
from vitarium.data.loader import Batches
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

plugins("operator")  # imports them in every process, before its time is taken
RATIO, BESIDE = 1.5, 200 * 2**20
SIZE, IMAGES, CLASSES = (3, 224, 224), 2, 100
GREEDY = 16
"""Models of the greedy soup, at most: it runs each of them twice."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the models there, or take what is there")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        if not folder.exists():
            write(folder, args.models, packed=False)
        return 0 if measure(folder, args.models, args.repeats) else 1


def measure(folder: Path, models: int, repeats: int) -> bool:
    """Print a table and a JSON line."""
    table = Table(title=f"{models} ViT-S models, {os.cpu_count()} cores", title_justify="left")
    for column in ("soup", "files", "reading [s]", "soup [s]", "ratio", "own memory"):
        table.add_column(column, justify="right")
    _, (libraries, _) = alone(nothing, folder, models)
    rows: list[dict[str, Any]] = []
    for cache in ("cold", "warm"):
        best, memory = {"reading": math.inf, "uniform": math.inf}, 0
        for _ in range(repeats):
            for what in (reading, uniform):
                if cache == "cold":
                    forget(folder)
                seconds, (anonymous, _) = alone(what, folder, models)
                best[what.__name__] = min(best[what.__name__], seconds)
                memory = max(memory, anonymous - libraries) if what is uniform else memory
        row = {"soup": "uniform", "cache": cache, **best, "memory": memory}
        rows.append(row | {"ratio": best["uniform"] / best["reading"]})
    seconds, (anonymous, _) = alone(greedy, folder, min(models, GREEDY))
    rows.append({"soup": "greedy", "cache": "warm", "greedy": seconds})
    rows[-1]["memory"] = anonymous - libraries
    for row in rows:
        table.add_row(
            row["soup"],
            row["cache"],
            f"{row['reading']:.2f}" if "reading" in row else "",
            f"{row[row['soup']]:.2f}",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{row['memory'] / 2**20:.0f} MiB",
        )
    Console().print(table)
    cold, warm, _ = rows
    bound = 2 * largest(folder) * models + BESIDE
    memory = max(cold["memory"], warm["memory"])
    good = cold["ratio"] <= RATIO and memory <= bound
    said = f"{cold['ratio']:.2f} times reading cold, {warm['ratio']:.2f} warm"
    target = f"at most {RATIO} times cold, {bound / 2**20:.0f} MiB"
    judged = "reached" if good else "MISSED"
    print(f"{said}, at {memory / 2**20:.0f} MiB: {judged} ({target})")
    print(json.dumps({"benchmark": "soup", "models": models, "reached": good, "rows": rows}))
    return good


def nothing(folder: Path, count: int) -> None:
    """Only imports: how much memory the libraries have."""
    time.sleep(0.2)  # so that it is sampled


def uniform(folder: Path, count: int) -> None:
    soup = choose("operator", "uniform_soup")(of(folder, count))
    made = {name: tensor.float() for name, tensor in soup}
    if not all(tensor.isfinite().all() for tensor in made.values()):
        raise SystemExit("the soup is not finite")


def greedy(folder: Path, count: int) -> None:
    """The greedy soup; every candidate is read twice, so twice the bytes of all."""
    models = [Counted(model) for model in of(folder, count)]
    images = torch.randint(0, 256, (IMAGES, *SIZE), dtype=torch.uint8)
    split = Split(images, torch.arange(IMAGES) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    data = Dataset("noise", names, split, split, split, (0.5,) * 3, (0.5,) * 3)
    how = section("augmentation", "standard")(SIZE, CLASSES)
    examples = EvalData(Batches(data, how, SIZE, 1, seed=0), "val")
    ingredients = Ingredients(
        models,
        model=lambda: create_model("vit_small_patch16_224", num_classes=CLASSES).eval(),
        examples=lambda: examples,
    )
    made = {name: t.float() for name, t in choose("operator", "greedy_soup")(ingredients)}
    one = sum(4 * math.prod(tensor.shape) for tensor in made.values())
    reads = sum(model.bytes for model in models) / one / count
    print(f"the greedy soup read every model {reads:.2f} times", flush=True)
    if reads != 2:
        raise SystemExit("each has to be read to be scored, and to be tried")


class Counted(Weights):
    """Weights that count the bytes that are asked for."""

    def __init__(self, model: Weights) -> None:
        super().__init__(model.name, model)
        self.shapes, self.bytes = model.shapes, 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def of(folder: Path, count: int) -> Ingredients:
    opened: Mapping[str, Any] = checkpoints(folder, count)
    return Ingredients([Weights(f"{id}@0", checkpoint) for id, checkpoint in opened.items()])


def largest(folder: Path) -> int:
    """Bytes of a model's largest tensor."""
    (one,) = of(folder, 1)
    sizes: Iterator[int] = (4 * math.prod(shape) for shape in one.shapes.values())
    return max(sizes)


if __name__ == "__main__":
    sys.exit(main())
