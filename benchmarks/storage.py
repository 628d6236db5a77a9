"""Storage: bytes, opening, unpacking and writing of real zoos, against what a reference keeps.

Grows two zoos on real images: tiny ViTs, half of the fine-tunings by AdamW and half by SGD without
momentum (as in the paper, which leaves the reference least to keep), 20 epochs each; and ViT-S
(4-pixel patches on 32-pixel images), a pre-training and a fine-tuning by each optimizer. Then

1. bytes: all files of the zoo against `torch.save` of weights and optimizer state after every
   epoch, bit-exact and in bfloat16;
2. codes: how many bits a weight takes, and how fast it is unpacked, in several ways;
3. opening: `zoo.checkpoint` against `safetensors.torch.load_file` on the plain file (both map, and
   read when a tensor is used), and both with every weight read;
4. writing: growing with and without keeping checkpoints.

    python benchmarks/storage.py                       # all of it: about 20 minutes
    python benchmarks/storage.py --tiny DIR --vit-s DIR  # zoos that lie ready
"""

import argparse
import io
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import safetensors.torch
import torch
import zstandard
from rich.console import Console
from rich.table import Table

from vitarium import Blueprint, Zoo, grow
from vitarium.training.resume import rounded
from vitarium.zoo._format import coding
from vitarium.zoo._format.coding import Bits
from vitarium.zoo.checkpoint_folder import CheckpointFolder

EXACT, AIM, HALF = 0.35, 0.28, 0.18
OPEN, WRITE, DECODE = 2.0, 0.10, 300.0
ROUNDS = 3

_TINY_VIT = {
    "name": "vit",
    "img_size": 16,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 64,
    "depth": 4,
    "num_heads": 4,
    "class_token": False,
    "global_pool": "avg",
}
_OPTIMIZERS = [
    {"optimizer": {"name": "adamw", "weight_decay": 0}},
    {"optimizer": {"name": "sgd", "momentum": 0}},
]
TINY = {
    "name": "tiny",
    "stages": {
        "pretrain": {
            "architecture": _TINY_VIT,
            "data": "mnist5k",
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
            "schedule": {"name": "cosine", "warmup_epochs": 2},
            "epochs": 20,
            "batch_size": 32,
        },
        "finetune": {
            "start": "pretrain",
            "data": "digits",
            "augmentation": {"name": "standard", "crop": "random", "padding": 1},
            "epochs": 20,
            "batch_size": 32,
            "grid": {"optimizer.lr": [3e-3, 1e-3, 1e-4]},
            "variants": _OPTIMIZERS,
        },
    },
}
VIT_S = {
    "name": "vit-s",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "timm",
                "model": "vit_small_patch16_224",
                "img_size": 32,
                "patch_size": 4,
                "in_chans": 1,
            },
            "data": {"name": "mnist5k", "train_limit": 1600},
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-4},
            "epochs": 2,
            "batch_size": 32,
        },
        "finetune": {
            "start": "pretrain",
            "data": "digits",
            "epochs": 5,
            "batch_size": 32,
            "grid": {"optimizer.lr": [1e-3]},
            "variants": _OPTIMIZERS,
        },
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Bytes, opening, unpacking and writing of zoos.")
    parser.add_argument("--tiny", type=Path, help="a zoo of this benchmark's tiny blueprint")
    parser.add_argument("--vit-s", type=Path, help="a zoo of this benchmark's ViT-S blueprint")
    parser.add_argument(
        "--part",
        choices=("bytes", "codes", "opening", "writing"),
        action="append",
        help="one of the tables, or several; default: all",
    )
    options = parser.parse_args()
    parts = options.part or ["bytes", "codes", "opening", "writing"]
    torch.set_num_threads(1)
    good = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        zoos = {}
        if parts != ["writing"]:
            zoos["tiny ViT"] = _zoo(options.tiny, TINY, folder / "tiny")
            zoos["ViT-S"] = _zoo(options.vit_s, VIT_S, folder / "vit-s")
        if "bytes" in parts:
            good.append(_bytes(zoos, folder))
        if "codes" in parts:
            good.append(_codes(zoos))
        if "opening" in parts:
            good.append(_opening(zoos, folder))
        if "writing" in parts:
            good.append(_writing(folder))
    return 0 if all(good) else 1


def _zoo(ready: Path | None, blueprint: dict[str, Any], folder: Path) -> Zoo:
    if ready:
        return Zoo.open(ready)
    _say(f"growing {blueprint['name']}")
    return grow(Blueprint.read(blueprint), folder, compiled=False, progress=False).zoo


# 1. Bytes


def _bytes(zoos: dict[str, Zoo], folder: Path) -> bool:
    table = _table(
        "Bytes of whole zoos", "zoo", "reference", "raw weights", "exact", "", "bf16", ""
    )
    good = True
    for name, zoo in zoos.items():
        reference = sum(_reference_bytes(zoo, id) for id in zoo.ids())
        raw = sum(checkpoint.nbytes for checkpoint in _checkpoints(zoo))
        exact, half = _size(zoo.path), _size(_in_half(zoo, folder / f"half-{name}").path)
        row = (f"{exact / reference:.1%}", _mb(half), f"{half / reference:.1%}")
        table.add_row(name, _mb(reference), _mb(raw), _mb(exact), *row)
        good &= exact <= EXACT * reference and half <= HALF * reference
    Console().print(table)
    return _judge(
        good, f"exact at most {EXACT:.0%} of the reference (aim: {AIM:.0%}), bf16 {HALF:.0%}"
    )


def _reference_bytes(zoo: Zoo, id: str) -> int:
    """What `torch.save` of weights and optimizer state takes after every epoch; 0: no state yet."""
    recipe = zoo.spec(id).origin
    model = zoo.load(id)
    optimizer = recipe.optimizer(model.parameters())  # type: ignore[union-attr]
    sizes = []
    for _ in range(2):
        content = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, content)
        sizes.append(content.tell())
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
    epochs = len(zoo.folder(id).epochs())
    return sizes[0] + (epochs - 1) * sizes[1]


def _in_half(zoo: Zoo, path: Path) -> Zoo:
    """The same zoo as if it had been grown with `checkpoint_precision: bf16`."""
    half = Zoo.create(path)
    for id in sorted(zoo.ids(), key=lambda id: zoo.spec(id).parent is not None):
        ours, theirs = zoo.folder(id), half.folder(id)
        spec = ours.spec()
        theirs.begin(spec, ours.about())
        recipe = spec.origin.model_copy(update={"checkpoint_precision": "bf16"})
        for epoch in ours.epochs():
            weights = rounded(ours.weights(epoch.number), recipe)  # type: ignore[arg-type]
            theirs.commit(epoch.number, epoch.metrics, weights, None)
        theirs.finish("finished")
    return half


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _checkpoints(zoo: Zoo) -> Iterator[Any]:
    for id in zoo.ids():
        for epoch in zoo.folder(id).epochs():
            yield zoo.checkpoint(id, epoch.number)


# 2. Codes


def _codes(zoos: dict[str, Zoo]) -> bool:
    table = _table("Bits per weight, one core", "code", *zoos, "unpacked")
    pairs = {name: _pairs(zoo) for name, zoo in zoos.items()}
    for code, (press, back) in CODES.items():
        cells, speeds = [], []
        for some in pairs.values():
            pressed = [(bits, base, press(bits, base)) for bits, base in some]
            size = sum(sum(map(len, streams)) for _, _, streams in pressed)
            count = sum(bits.size for bits, _ in some)
            cells.append(f"{8 * size / count:.1f}")
            if back:
                best = min(_seconds(partial(_unpack, pressed, back)) for _ in range(3))
                speeds.append(4 * count / best / 1e6)
        table.add_row(code, *cells, f"{max(speeds):.0f} MB/s" if speeds else "")
    Console().print(table)
    return _judge(max(speeds) >= DECODE, f"the last one, which is ours, at least {DECODE:.0f} MB/s")


def _pairs(zoo: Zoo) -> list[tuple[Bits, Bits]]:
    """Weights and those of the epoch before, in runs; of a middle epoch of every fine-tuning."""
    found = []
    for id in zoo.ids():
        spec = zoo.spec(id)
        if spec.parent is None:
            continue
        middle = spec.origin.epochs // 2  # type: ignore[union-attr]
        now, before = (_flat(zoo.state_dict(id, epoch)) for epoch in (middle, middle - 1))
        run = coding.RUN_BYTES // 4
        found += [(now[k : k + run], before[k : k + run]) for k in range(0, len(now), run)]
    return found


def _flat(weights: dict[str, torch.Tensor]) -> Bits:
    return torch.cat([tensor.flatten() for tensor in weights.values()]).numpy().view(np.uint32)


def _zstd(values: Bits) -> list[bytes]:
    return [zstandard.ZstdCompressor(level=3).compress(values.tobytes())]


def _of(streams: list[bytes], like: Bits) -> Bits:
    if len(streams) == 1:
        plain = zstandard.ZstdDecompressor().decompress(streams[0])
        return np.frombuffer(plain, like.dtype)
    return coding.decompress([memoryview(s) for s in streams], like.size, like.itemsize)


def _bits_by_place(values: Bits) -> list[bytes]:
    """As blosc's bitshuffle: the bits of each place together."""
    places = np.unpackbits(values.view(np.uint8).reshape(-1, 4), axis=1).T
    packed = np.packbits(np.ascontiguousarray(places), axis=1)
    return [zstandard.ZstdCompressor(level=1).compress(packed.tobytes())]


Press = Callable[[Bits, Bits], list[bytes]]
CODES: dict[str, tuple[Press, Callable[[list[bytes], Bits, Bits], Any] | None]] = {
    "zstd": (lambda bits, base: _zstd(bits), lambda s, bits, base: _of(s, bits)),
    "zstd of XOR": (
        lambda bits, base: _zstd(bits ^ base),
        lambda s, bits, base: _of(s, bits) ^ base,
    ),
    "bits by place, XOR": (lambda bits, base: _bits_by_place(bits ^ base), None),
    "bytes by place": (
        lambda bits, base: coding.compress(bits),
        lambda s, bits, base: _of(s, bits),
    ),
    "exponent first, bytes by place (alone)": (
        lambda bits, base: coding.compress(coding.rotated(bits)),
        lambda s, bits, base: coding.rotated_back(_of(s, bits)),
    ),
    "XOR, bytes by place": (
        lambda bits, base: coding.compress(bits ^ base),
        lambda s, bits, base: _of(s, bits) ^ base,
    ),
    "difference, bytes by place": (
        lambda bits, base: coding.compress(coding.difference(bits, base, True)),
        lambda s, bits, base: coding.added(base, _of(s, bits), True),
    ),
}
"""How a run is pressed given the epoch before, and unpacked (None: only its size is looked at);
ours is the last one."""


def _unpack(pressed: Any, back: Any) -> None:
    for bits, base, streams in pressed:
        back(streams, bits, base)


# 3. Opening


def _opening(zoos: dict[str, Zoo], folder: Path) -> bool:
    title = "Random checkpoints, milliseconds (median), two cores"
    table = _table(title, "zoo", "", "load_file", "packed", "ratio", "unpacked zoo", "ratio")
    torch.set_num_threads(2)
    good = True
    for name, zoo in zoos.items():
        chosen = random.Random(0).choices(
            [(id, epoch.number) for id in zoo.ids() for epoch in zoo.folder(id).epochs()], k=40
        )
        plain = _unpacked(zoo, folder / f"plain-{name}")
        for what, finish in (("opened", len), ("every weight read", _touch)):
            times = [_three(zoo, plain, *one, finish, folder / "raw.safetensors") for one in chosen]
            reference, packed, mapped = (
                1e3 * statistics.median(t) for t in zip(*times, strict=True)
            )
            cells = (f"{packed:.2f}", f"{packed / reference:.1f}")
            cells += (f"{mapped:.2f}", f"{mapped / reference:.1f}")
            table.add_row(name, what, f"{reference:.2f}", *cells)
            if what == "opened":
                good &= packed <= OPEN * reference
    torch.set_num_threads(1)
    Console().print(table)
    return _judge(good, f"opened in at most {OPEN:.0f} times as long as load_file, packed")


def _three(
    packed: Zoo, plain: Zoo, id: str, epoch: int, finish: Callable[[Any], Any], raw: Path
) -> tuple[float, float, float]:
    """Seconds for the plain file by load_file, and for the same from the packed and plain zoo."""
    safetensors.torch.save_file(packed.state_dict(id, epoch), raw)
    finish(safetensors.torch.load_file(raw))
    return (
        _seconds(lambda: finish(safetensors.torch.load_file(raw))),
        _seconds(lambda: finish(packed.checkpoint(id, epoch))),
        _seconds(lambda: finish(plain.checkpoint(id, epoch))),
    )


def _touch(checkpoint: Any) -> None:
    read = getattr(checkpoint, "state_dict", lambda: checkpoint)()
    for tensor in read.values():
        tensor.sum()


def _unpacked(zoo: Zoo, path: Path) -> Zoo:
    shutil.copytree(zoo.path, path)
    Zoo.open(path).unpack()
    return Zoo.open(path)


# 4. Writing


def _writing(folder: Path) -> bool:
    table = _table("Growing, seconds", "models", "without checkpoints", "with", "overhead")
    good = True
    changes = {
        "tiny ViT": (TINY, {"epochs": 10}),
        # few images, so that it is over soon; longer epochs have less to write for their time
        "ViT-S": (VIT_S, {"epochs": 1, "data": {"name": "digits", "train_limit": 320}}),
    }
    torch.set_num_threads(2)
    for name, (blueprint, change) in changes.items():
        stage = {**blueprint["stages"]["pretrain"], **change}
        one = Blueprint.read({"name": "one", "stages": {"pretrain": stage}})
        taken: dict[str, list[float]] = {"with": [], "without": []}
        for number in range(ROUNDS):
            for how, times in taken.items():
                zoo = folder / f"{how}-{name}-{number}"
                keep = patch.object(CheckpointFolder, "write", lambda *args: "0" * 64)
                with keep if how == "without" else patch.dict({}):
                    times.append(_seconds(lambda: _grow(one, zoo)))  # noqa: B023 -- at once
        ratios = [w / wo - 1 for w, wo in zip(taken["with"], taken["without"], strict=True)]
        without, with_ = (statistics.median(taken[how]) for how in ("without", "with"))
        overhead = statistics.median(ratios)
        table.add_row(name, f"{without:.1f}", f"{with_:.1f}", f"{overhead:.1%}")
        good &= overhead <= WRITE
    Console().print(table)
    return _judge(good, f"keeping checkpoints takes at most {WRITE:.0%} of the time")


def _grow(blueprint: Blueprint, folder: Path) -> None:
    grow(blueprint, folder, workers=0, compiled=False, stacked=1, progress=False)


def _seconds(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _judge(good: bool, target: str) -> bool:
    _say(f"{'reached' if good else 'MISSED'}: {target}\n")
    return good


def _say(text: str) -> None:
    Console().print(text, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
