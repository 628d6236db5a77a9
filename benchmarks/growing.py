"""How much faster vitarium grows a zoo than the published recipe does, side by side.

`--part zoo`: the demo's grid of fine-tunings and controls, 13 tiny ViTs, from the command to the
last checkpoint. Both sides are commands, so both pay for starting. `--part vit-s`: ViT-S/16 at 224
pixels, augmented as the CIFAR-100 fine-tunings of vit-s-imagenet-cifar100 are; images per second
while training, of the whole machine.

The reference (reference_recipe.py) runs at its best setting, which a short search finds first. A
zoo is grown by it twice: with a process per trial, which is Ray Tune's default and the published
way, and with processes that trials reuse, which nobody has published and a fair critic asks for.
All sides are measured in turn, round by round, on the same cores; what is reported are the medians
of the rounds and of the rounds' ratios. Needs Ray for the zoo: pip install "ray[tune]".

    python benchmarks/growing.py                          # both parts
    python benchmarks/growing.py --part zoo --rounds 5
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reference_recipe import Setting, chosen, train_speed
from rich.console import Console
from rich.table import Table

import vitarium
from vitarium import Blueprint, Plan
from vitarium.blueprint import ModelSpec
from vitarium.data.load import load
from vitarium.engine.events import Ended, EpochEnded, Event, Started

REFERENCE = Path(__file__).with_name("reference_recipe.py")
CHECKPOINTS = (".packed", ".pt")
GRACE = 20.0  # seconds that a stopped command has to end by itself
START = 600.0  # seconds after which a process that has not begun to train is given up

ZOO_TARGETS = {"reference": 1.5, "reused": 1.6}  # times faster
ZOO_SEARCHED = 4  # models that are trained to try a setting
VIT_S_TARGET, VIT_S_SEARCHED = 2.0, 3  # times faster; steps to try a setting
CLASSES, SCORED_PER_CLASS, BATCH = 10, 1, 32

# One pre-trained model, cut short, the demo's fine-tunings of it, and its controls from scratch.
GRID = """\
extends: demo
name: demo-grid
override:
  stages.pretrain.variants:
    - augmentation: {{name: standard, crop: random, padding: 1}}
      batch_size: 32
  stages.pretrain.epochs: {pretrain}
  stages.finetune.epochs: {epochs}
  stages.scratch.epochs: {epochs}
"""


@dataclass(frozen=True)
class Round:
    """What one round measured of two sides; `ratio` is above 1 where vitarium is the faster one."""

    reference: float
    vitarium: float
    ratio: float


def main() -> int:
    args = _arguments()
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    parts: dict[str, Callable[[argparse.Namespace], None]] = {"zoo": zoo, "vit-s": vit_s}
    try:
        for name in parts if args.part == "all" else [args.part]:
            parts[name](args)
    except KeyboardInterrupt:
        Console(stderr=True).print("\nStopped; what was written has been removed.")
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["zoo", "vit-s", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, help="for both sides; default: all there are")
    parser.add_argument("--epochs", type=int, help="per model; default: 8 (zoo), 3 (vit-s)")
    parser.add_argument("--steps", type=int, default=8, help="of the reference (vit-s)")
    parser.add_argument("--images", type=int, default=320, help="to train on (vit-s)")
    parser.add_argument(
        "--setting",
        type=_setting,
        help="of the reference, instead of a search: "
        "models at a time, threads each, loader workers each; e.g. 2,1,0",
    )
    args = parser.parse_args()
    if args.epochs and args.epochs < 2 and args.part != "zoo":
        parser.error("--epochs: part vit-s does not count the first epoch, so give 2 or more")
    return args


def _setting(text: str) -> Setting:
    workers, threads, loader_workers = map(int, text.split(","))
    return Setting(workers, threads, loader_workers)


# Part zoo


def zoo(args: argparse.Namespace) -> None:
    """Seconds from the command to the last checkpoint, of a whole zoo."""
    epochs = args.epochs or 8
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        folder = Path(name)
        file = folder / "grid.yaml"
        file.write_text(GRID.format(pretrain=min(2, epochs), epochs=epochs))
        planned = vitarium.plan(Blueprint.load(file))
        setting = args.setting or best_zoo_setting(file, planned)
        rounds: dict[str, list[Round]] = {"reference": [], "reused": []}
        for number in range(args.rounds):
            seconds = {
                side: reference_seconds(file, planned, setting, reuse=side == "reused")
                for side in rounds
            }
            ours = vitarium_seconds(file, planned)
            for side, taken in seconds.items():
                rounds[side].append(Round(taken, ours, taken / ours))
            _say(
                f"round {number + 1}: reference {seconds['reference']:.1f} s, with processes "
                f"reused {seconds['reused']:.1f} s, vitarium {ours:.1f} s"
            )
    report_zoo(planned, rounds, setting)


def vitarium_seconds(blueprint: Path, planned: Plan) -> float:
    """Seconds that `vitarium grow` takes for a zoo that is not there yet."""
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        command = [sys.executable, "-m", "vitarium", "grow", str(blueprint)]
        out = Path(name) / "zoo"
        return _seconds(
            [*command, "--zoo", str(out), "--device", "cpu"], out, _checkpoints(planned.models)
        )


def reference_seconds(
    blueprint: Path,
    planned: Plan,
    setting: Setting,
    *,
    reuse: bool = False,
    stage: str | None = None,
    models: int | None = None,
) -> float:
    """Seconds that the reference takes for a blueprint's models, or the first of one stage."""
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        out = Path(name) / "zoo"
        options = {
            "--out": out,
            "--device": "cpu",
            "--workers": setting.workers,
            "--threads": setting.threads,
            "--loader-workers": setting.loader_workers,
            "--stage": stage,
            "--models": models,
        }
        command = [sys.executable, str(REFERENCE), str(blueprint)]
        for option, value in options.items():
            command += [] if value is None else [option, str(value)]
        command += ["--reuse-actors"] if reuse else []
        return _seconds(command, out, _checkpoints(chosen(planned, stage, models)))


def best_zoo_setting(blueprint: Path, planned: Plan) -> Setting:
    """The setting with which the reference trains a few models soonest, with processes reused."""

    def tried(setting: Setting) -> float:
        return reference_seconds(
            blueprint,
            planned,
            setting,
            reuse=True,
            stage="scratch",
            models=ZOO_SEARCHED,
        )

    return _best(_choices(), tried, f"Reference, {ZOO_SEARCHED} models", "seconds", min)


def report_zoo(planned: Plan, rounds: dict[str, list[Round]], setting: Setting) -> None:
    """Print a table and a JSON line for each way of the reference."""
    models, images = len(planned), images_trained_on(planned.models)
    seconds = {side: _medians(some)["reference"] for side, some in rounds.items()}
    seconds["vitarium"] = _medians(rounds["reference"])["vitarium"]
    count = len(rounds["reference"])
    table = Table(title=f"{models} models of the demo, {_cores()} cores, {count} rounds")
    for column in ("", "seconds", "models per hour", "images per second"):
        table.add_column(column, justify="right" if column else "left")
    for side, taken in seconds.items():
        label = "reference, processes reused" if side == "reused" else side
        table.add_row(
            label, f"{taken:.1f}", f"{models / taken * 3600:.0f}", f"{images / taken:.0f}"
        )
    _print(table)
    for side, some in rounds.items():
        _conclude(
            "zoo",
            some,
            ZOO_TARGETS[side],
            {
                "models": models,
                "checkpoints": _checkpoints(planned.models),
                "reference_setting": str(setting) + (", reused" if side == "reused" else ""),
                "seconds": _rounded(seconds),
                "models_per_hour": _rounded({s: models / t * 3600 for s, t in seconds.items()}),
                "images_per_second": _rounded({s: images / t for s, t in seconds.items()}),
            },
        )


def images_trained_on(models: Iterable[ModelSpec]) -> int:
    """Training images of all epochs of all models; an epoch's last batch is left out if not full.

    Neither scoring nor second views count.
    """
    total = 0
    for recipe in (model.recipe for model in models):
        steps = len(load(recipe.data).train) // recipe.batch_size
        total += recipe.epochs * steps * recipe.batch_size
    return total


def _checkpoints(models: Iterable[ModelSpec]) -> int:
    return sum(len(model.recipe.kept_epochs) for model in models)


def _seconds(command: Sequence[str], out: Path, checkpoints: int) -> float:
    """Seconds from the start of a command to the last checkpoint that it writes below `out`.

    What it does after that does not count. Raises RuntimeError if it fails, or does not write as
    many checkpoints as it should.
    """
    with tempfile.TemporaryFile("w+") as said:
        started = time.time()  # as files' times are, not perf_counter
        status = _run(command, said)
        said.seek(0)
        ends = [f.stat().st_mtime for f in out.rglob("*") if f.suffix in CHECKPOINTS]
        if status or len(ends) < checkpoints:
            raise RuntimeError(
                f"{' '.join(command)} ended with status {status} and {len(ends)} of {checkpoints} "
                f"checkpoints:\n{said.read()[-4000:]}"
            )
    return max(ends) - started


def _run(command: Sequence[str], said: Any) -> int:
    """Run a command to its end; on Ctrl-C, let it end by itself, so that it stops its own."""
    with subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


# Part vit-s


def vit_s(args: argparse.Namespace) -> None:
    """Images per second while training, of the whole machine."""
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        folder = Path(name)
        write_images(folder / "images", args.images // CLASSES)
        blueprint = vit_s_blueprint(folder / "images", args.epochs or 3)
        spec = vitarium.plan(blueprint).models[0]
        setting = args.setting or best_vit_s_setting(spec, min(VIT_S_SEARCHED, args.steps))
        rounds = []
        for number in range(args.rounds):
            reference = reference_speed(spec, args.steps, setting)
            ours = vitarium_speed(blueprint)
            rounds.append(Round(reference, ours, ours / reference))
            _say(f"round {number + 1}: {reference:.2f} and {ours:.2f} images per second")
    report_vit_s(spec, rounds, setting)


def write_images(folder: Path, per_class: int) -> None:
    """Random 32-pixel RGB images as train/, val/ and test/CLASS/*.png."""
    random = np.random.default_rng(0)
    for split, count in (
        ("train", per_class),
        ("val", SCORED_PER_CLASS),
        ("test", SCORED_PER_CLASS),
    ):
        for label in range(CLASSES):
            place = folder / split / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number:04d}.png")


def vit_s_blueprint(images: Path, epochs: int, batch_size: int = BATCH) -> Blueprint:
    """As many ViT-S/16 as there are cores, trained as the paper fine-tunes them on CIFAR-100."""
    return Blueprint.read(
        {
            "name": "vit-s-speed",
            "stages": {
                "finetune": {
                    "architecture": {"name": "timm", "model": "vit_small_patch16_224"},
                    "data": {"name": "image_folder", "folder": str(images.absolute())},
                    "augmentation": {
                        "name": "standard",
                        "resize": 256,
                        "crop": "random",
                        "interpolation": "bicubic",
                        "horizontal_flip": 0.5,
                        "rotation": 10,
                        "random_erasing": 0.25,
                        "random_erasing_mode": "pixel",
                        "mixup": 0.8,
                        "cutmix": 1.0,
                    },
                    "objective": {"name": "supervised", "label_smoothing": 0.1},
                    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 0},
                    "schedule": "constant",
                    "epochs": epochs,
                    "batch_size": batch_size,
                    "checkpoints": "last",
                    "grid": {"seed": list(range(1, _cores() + 1))},
                }
            },
        }
    )


def vitarium_speed(blueprint: Blueprint) -> float:
    """Images per second of all models that vitarium trains at a time, from the second epoch on."""
    speeds = Speeds()
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        growth = vitarium.grow(
            blueprint, Path(name) / "zoo", device="cpu", progress=False, listener=speeds
        )
    if not growth.complete:
        raise RuntimeError(f"vitarium did not train every model: {growth.failed}")
    return speeds.at_a_time * statistics.median(speeds.of_a_model)


@dataclass
class Speeds:
    """A listener that notes each model's speed, and how many models are trained at a time."""

    of_a_model: list[float] = field(default_factory=list)
    at_a_time: int = 0
    running: set[str] = field(default_factory=set)

    def __call__(self, event: Event) -> None:
        match event:
            case Started(model):
                self.running.add(model)
                self.at_a_time = max(self.at_a_time, len(self.running))
            case Ended(model):
                self.running.discard(model)
            case EpochEnded(_, epoch, metrics) if epoch > 1:
                self.of_a_model.append(metrics["images_per_second"])


def reference_speed(spec: ModelSpec, steps: int, setting: Setting) -> float:
    """Images per second of the reference's training processes together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(setting.workers)
    with ProcessPoolExecutor(
        setting.workers, mp_context=context, initializer=_share, initargs=(barrier,)
    ) as pool:
        running = [pool.submit(_speed, spec, steps, setting) for _ in range(setting.workers)]
        return sum(each.result() for each in running)


_barrier: threading.Barrier | None = None


def _share(barrier: threading.Barrier) -> None:
    global _barrier
    _barrier = barrier
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once on Ctrl-C


def _speed(spec: ModelSpec, steps: int, setting: Setting) -> float:
    """One process's images per second, counted from when all of them are training."""
    assert _barrier
    try:
        return train_speed(spec, steps, setting, ready=lambda: _barrier.wait(START))
    except BaseException:
        _barrier.abort()
        raise


def best_vit_s_setting(spec: ModelSpec, steps: int) -> Setting:
    """The setting with which the reference trains most images per second."""

    def tried(setting: Setting) -> float:
        return reference_speed(spec, steps, setting)

    return _best(_choices(), tried, f"Reference, {steps} steps", "images per second", max)


def report_vit_s(spec: ModelSpec, rounds: list[Round], setting: Setting) -> None:
    """Print a table and a JSON line."""
    speeds = _medians(rounds)
    table = Table(title=f"ViT-S/16, 224 px, {_cores()} cores, {len(rounds)} rounds")
    table.add_column("")
    table.add_column("images per second", justify="right")
    for side, speed in speeds.items():
        table.add_row(side, f"{speed:.2f}")
    _print(table)
    _conclude(
        "vit-s",
        rounds,
        VIT_S_TARGET,
        {
            "batch_size": spec.recipe.batch_size,
            "reference_setting": str(setting),
            "images_per_second": _rounded(speeds),
        },
    )


# Both parts


def _best(
    choices: Iterable[Setting],
    tried: Callable[[Setting], float],
    title: str,
    unit: str,
    best: Callable[..., Setting],
) -> Setting:
    """Try every setting, print what each gave, and return the `best` (min or max) of them."""
    found: dict[Setting, float] = {}
    for setting in choices:
        found[setting] = tried(setting)
        _say(f"{setting}: {found[setting]:.2f} {unit}")
    winner = best(found, key=found.__getitem__)
    table = Table(title=title)
    for column in ("models at a time", "threads", "loader workers", unit, ""):
        table.add_column(column, justify="right")
    for setting, value in found.items():
        told = [setting.workers, setting.threads, setting.loader_workers, f"{value:.2f}"]
        table.add_row(*map(str, told), "best" if setting == winner else "")
    _print(table)
    return winner


def _conclude(part: str, rounds: list[Round], target: float, facts: dict[str, Any]) -> None:
    ratio = statistics.median(one.ratio for one in rounds)
    reached = ratio >= target
    said = "reached" if reached else "missed"
    against = facts["reference_setting"]
    print(f"vitarium is {ratio:.2f} times as fast ({against}): target {said} ({target} times)")
    line = {"benchmark": "growing", "part": part, "cores": _cores(), **facts}
    line |= {
        "ratio": round(ratio, 3),
        "ratios": [round(one.ratio, 3) for one in rounds],
        "target": target,
        "reached": reached,
    }
    print(json.dumps(line), flush=True)


def _medians(rounds: list[Round]) -> dict[str, float]:
    return {
        "reference": statistics.median(one.reference for one in rounds),
        "vitarium": statistics.median(one.vitarium for one in rounds),
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def _choices() -> list[Setting]:
    """Settings that use the whole machine: one model with all threads, or as many as cores."""
    return [
        Setting(workers, threads, loader_workers)
        for workers, threads in dict.fromkeys([(1, _cores()), (_cores(), 1)])
        for loader_workers in (0, 1, 2)
    ]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="dim")


def _print(table: Table) -> None:
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
