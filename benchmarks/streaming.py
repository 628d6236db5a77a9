"""Benchmark: what streamed JPEGs cost while a ViT-Ti is trained at 224 pixels.

Photo-like JPEGs of 500 x 375 pixels are decoded and framed alone, on one thread, by each decoder
that is installed; and while a model is trained, in the training process and by a loader process.
The same steps on batches that lie ready in memory are timed in turn, since a loader process takes
its time from the same cores. Waiting is the time in which a step's batch is not there yet.

    python benchmarks/streaming.py [--batch-size 32] [--steps 4] [--rounds 3] [--threads 2]
        [--precisions fp32 bf16]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.core.memory import keep_freed_memory
from vitarium.data._image_files import decoded
from vitarium.data.augmentations._crops import CROP_NUMBERS, random_resized_crops
from vitarium.data.augmentations._single_image import cut_image
from vitarium.data.batch import Batch
from vitarium.data.loader import stacked_batches
from vitarium.training.options import Precision, TrainOptions, numerics
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

TARGET = 0.05
"""Largest share of a step's time that is spent waiting for data, with the default settings."""
SIZES = ((375, 500), (500, 375))
DECODED_IMAGES, MIN_SECONDS = 48, 1.0
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LOADER_WORKERS = (0, 1)


class Pace(NamedTuple):
    """Seconds of a step: waiting for its batch, and all of it; by the clock, and of processors."""

    waiting: float
    step: float
    data_processor: float
    step_processor: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)
    keep_freed_memory()  # as where models are trained
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        write_images(images, args.batch_size * args.steps)
        torch.set_num_threads(1)
        decoding = report_decoding([file.read_bytes() for file in sorted(images.rglob("*.jpg"))])
        torch.set_num_threads(args.threads)
        reached = [
            report_training(precision, images, Path(folder) / precision, decoding, args)
            for precision in args.precisions
        ]
    return 0 if all(reached) else 1


def write_images(folder: Path, num_train: int) -> None:
    """Images of two shapes in two classes; of one shape they would be decoded beforehand."""
    random = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", 4), ("test", 4)):
        for number in range(count):
            file = folder / split / f"class_{number % 2}" / f"{number:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            photo(random, SIZES[number // 2 % 2]).save(file, quality=92)


def photo(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Noise at all scales, the finest weakest; as JPEG, it takes about as much as a photo."""
    height, width = size
    pixels = np.full((height, width, 3), 128.0)
    for scale, strength in ((125, 40), (25, 25), (5, 12), (1, 10)):
        shape = (height // scale, width // scale, 3)
        noise = random.normal(0, strength, shape).clip(-127, 127) + 128
        layer = Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.BICUBIC)
        pixels += np.asarray(layer, dtype=np.float64) - 128
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


# Alone


def report_decoding(files: list[bytes]) -> float:
    """Print a table and a JSON line; returns the milliseconds in which an image is decoded."""
    files = files[:DECODED_IMAGES]
    megabytes = sum(map(len, files)) / len(files) / 1e6
    table = Table(title=f"Decoding, one thread, 500 x 375 pixels, {megabytes * 1000:.0f} KB")
    table.add_column("decoder")
    table.add_column("images/s", justify="right")
    table.add_column("pixels")
    expected = [decoded(file, "image") for file in files]
    rates = {}
    for name, decode in decoders().items():
        rates[name] = rate([partial(decode, file) for file in files])
        same = all(map(torch.equal, map(decode, files), expected))
        table.add_row(name, f"{rates[name]:,.0f}", "Pillow's" if same else "others")
    numbers = torch.rand(len(expected), CROP_NUMBERS, dtype=torch.float64)
    framed = {
        "crop of 224 pixels, torch (used)": cut_image,
        "crop of 224 pixels, matrices": lambda frame, image: frame.cut(image[None])[0],
    }
    for name, cut in framed.items():
        frames = [
            random_resized_crops(
                (image.shape[1], image.shape[2]),
                (224, 224),
                scale=(0.08, 1.0),
                ratio=(3 / 4, 4 / 3),
                numbers=drawn[None],
            )
            for image, drawn in zip(expected, numbers, strict=True)
        ]
        rates[name] = rate([*map(partial(partial, cut), frames, expected)])
        table.add_row(name, f"{rates[name]:,.0f}", "")
    Console().print(table)
    print(json.dumps({"benchmark": "streaming", "part": "decoding", **rates}), flush=True)
    return 1000 / rates["Pillow (used)"]


def decoders() -> dict[str, Callable[[bytes], Tensor]]:
    """Those that are installed."""
    available: dict[str, Callable[[bytes], Tensor]] = {
        "Pillow (used)": lambda file: decoded(file, "image"),
        "Pillow, at half size": half_size,
    }
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        available["torchvision.io (deprecated)"] = lambda file: decode_jpeg(
            torch.frombuffer(bytearray(file), dtype=torch.uint8), mode=ImageReadMode.RGB
        )
    except ImportError:  # it is to be removed
        pass
    try:
        import simplejpeg

        available["simplejpeg"] = lambda file: torch.from_numpy(
            simplejpeg.decode_jpeg(file, "RGB")
        ).permute(2, 0, 1)
    except ImportError:
        print("simplejpeg is not installed: pip install simplejpeg")
    return available


def half_size(file: bytes) -> Tensor:
    with Image.open(BytesIO(file)) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return pil_to_tensor(image.convert("RGB"))


def rate(calls: list[Callable[[], object]]) -> float:
    """Calls per second of this thread's time, at best."""
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < MIN_SECONDS:
        before = time.thread_time()
        for call in calls:
            call()
        best = min(best, (time.thread_time() - before) / len(calls))
    return 1 / best


# In training


def report_training(
    precision: Precision, images: Path, folder: Path, decoding: float, args: argparse.Namespace
) -> bool:
    """Print a table and a JSON line; whether the target is reached with the default settings."""
    spec = model_to_train(images, args.batch_size, args.rounds + 1)
    options = {
        count: TrainOptions(loader_workers=count, precision=precision) for count in LOADER_WORKERS
    }
    with numerics(options[0]):
        states = {
            count: TrainState(spec, ModelFolder(folder / f"{count}" / spec.id), None, option)
            for count, option in options.items()
        }
        trainer = Trainer([states[0]], options[0])
        trainer.training_mode()
        ready = list(stacked_batches([states[0].batches], 1))
        paces: dict[str, list[Pace]] = {}
        for epoch in range(1, args.rounds + 2):
            sources = {"in memory": iter(ready)}
            for count, state in states.items():
                sources[f"{count} loader workers"] = stacked_batches([state.batches], epoch)
            for name, batches in sources.items():
                pace = timed_epoch(trainer, batches, epoch)
                if epoch > 1:  # the first one warms up
                    paces.setdefault(name, []).append(pace)
    return report(precision, paces, decoding, args)


def model_to_train(images: Path, batch_size: int, epochs: int) -> ModelSpec:
    blueprint = Blueprint.read(
        {
            "name": "streaming",
            "stages": {
                "train": {
                    "architecture": {"name": "timm", "model": "vit_tiny_patch16_224"},
                    "data": {"name": "image_folder", "folder": str(images.absolute())},
                    "augmentation": {
                        "name": "standard",
                        "crop": "random_resized",
                        "horizontal_flip": 0.5,
                    },
                    "optimizer": "adamw",
                    "epochs": epochs,
                    "batch_size": batch_size,
                }
            },
        }
    )
    return plan(blueprint).models[0]


def timed_epoch(trainer: Trainer, batches: Iterator[Batch], epoch: int) -> Pace:
    waiting, steps = np.zeros(2), 0
    started = clocks()
    while True:
        before = clocks()
        batch = next(batches, None)
        waiting += clocks() - before
        if batch is None:
            break
        trainer.step(batch, epoch, steps)["loss"].tolist()
        steps += 1
    spent = clocks() - started
    (wait, data), (step, processor) = (waiting / steps).tolist(), (spent / steps).tolist()
    return Pace(wait, step, data, processor)


def clocks() -> np.ndarray:
    """Seconds of the clock, and of processors in this process, which depend less on others."""
    return np.array([time.perf_counter(), time.process_time()])


def report(
    precision: Precision, paces: dict[str, list[Pace]], decoding: float, args: argparse.Namespace
) -> bool:
    title = f"ViT-Ti, 224 pixels, batches of {args.batch_size}, {precision}, {args.threads} threads"
    table = Table(title=title)
    for column in ("images", "images/s", "waiting", "processor", "slower"):
        table.add_column(column, justify="left" if column == "images" else "right")
    ready = paces["in memory"]
    values = {}
    for name, rounds in paces.items():
        images = args.batch_size / statistics.median(pace.step for pace in rounds)
        waiting = statistics.median(pace.waiting / pace.step for pace in rounds)
        processor = statistics.median(p.data_processor / p.step_processor for p in rounds)
        slower = statistics.median(
            pace.step / other.step - 1 for pace, other in zip(rounds, ready, strict=True)
        )
        values[name] = {"images_per_s": images, "waiting": waiting, "processor": processor}
        values[name]["slower"] = slower
        shares = (f"{share:.1%}" for share in (waiting, processor, slower))
        table.add_row(name, f"{images:.1f}", *shares)
    Console().print(table)
    share = values["0 loader workers"]["waiting"]
    reached = share <= TARGET
    total = 1000 * args.threads / values["in memory"]["images_per_s"]
    limit = f"missed: an image is decoded in {decoding:.1f} ms and trained on in {total:.0f} ms"
    verdict = "reached" if reached else f"{limit} of a thread"
    print(f"{share:.1%} of a step is spent waiting for images: target {verdict} ({TARGET:.0%})")
    line = {"benchmark": "streaming", "part": precision, **values, "reached": reached}
    print(json.dumps(line), flush=True)
    return reached


if __name__ == "__main__":
    sys.exit(main())
