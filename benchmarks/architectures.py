"""Benchmark: what architectures are worth beside a plain ViT of as many parameters.

Every architecture, as wide as gives about 300,000 parameters, is trained on 1,000, 5,000 and 60,000
images of Fashion-MNIST and on 5,000 of CIFAR-10 by the same recipe, with three seeds; beside it the
plain `vit` of as many parameters with the same seeds, for as many epochs and for as long a time.
And 24 random plain topologies: whether scores of untrained models rank them as training does,
better than their parameters and operations do.

    python benchmarks/architectures.py --data-dir DIR [--folder architectures] [--seeds 3]
        [--only NAME ...] [--images 1000 5000 60000] [--without cifar10 topologies ...]

DIR has a folder `cifar10` with train.parquet and test.parquet (columns `image` and `label`, rows in
random order); Fashion-MNIST is Debian's package. What is in the folder is not grown or timed again,
so that it can be run in parts; a run prints the tables of its own part. Steps are timed first: on a
machine that does nothing else. Written there: architectures.md and architectures.json.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from adaptation_modes import FLIPPED, SHIFTED, cifar, subset
from architectures_table import Comparison, markdown, rows_of, tau_rows
from measured_steps import Step, measured_step

from vitarium import Blueprint, Zoo, grow, measure
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section, plugins, section

BASELINE, PARAMETERS, OUTPUTS = "vit", 300_000, 10
TOPOLOGIES, TOPOLOGY_IMAGES = 24, 5000
SIZES: Mapping[str, Any] = {"depth": 6, "num_heads": 4}
"""Of an architecture that is not listed below, with `embed_dim` as wide as fits."""
SIDE: Mapping[str, Any] = {"interactions": 3, "side_heads": 4, "stem_stride": 4, "stem_width": 12}
WIDTHS = range(16, 257, 4)
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "cellvta": {**SIZES, **SIDE},
    "ci2p": {**SIZES, "patch_size": 4},
    "dinov2": {**SIZES, "init_values": 0.1},
    "dual_token": {
        "widths": [32, 64],
        "depths": [1, 2],
        "num_heads": [2, 4],
        "mlp_ratios": [4, 4],
        "stem_stride": 2,
    },
    "l2vit": {"patch_size": 4, "depths": [2, 2], "num_heads": [2, 4]},
    "mini_deit": {**SIZES, "share": "all"},
    "mini_swin": {"patch_size": 4, "depths": [2, 2], "num_heads": [2, 4]},
    "mixed_scale": {**SIZES, "num_fine": 2},
    "sparseformer": {
        "latent_tokens": 16,
        "focus_dim": 32,
        "focus_heads": 4,
        "points": 9,
        "depth": 4,
        "num_heads": 4,
        "stem_width": 16,
        "stem_stride": 2,
    },
    "supernet": {
        **SIZES,
        "embed_dim": 64,
        "depths": [2, 4, 6],
        "embed_dims": [32, 48, 64],
        "mlp_ratios": [2, 4],
    },
    "vit_adapter": {**SIZES, **SIDE},
    "vit_comer": {**SIZES, **SIDE},
}
"""Settings of architectures that need others."""
BY_TASK: Mapping[str, Callable[["Task"], Mapping[str, Any]]] = {
    "ci2p": lambda task: {"codec_channels": 4 * task.in_chans},
    "dual_token": lambda task: {"global_side": task.img_size // 4},
}
"""Settings that depend on the images."""
LEFT_OUT = {
    "duoformer": "a CNN of 11 M parameters is part of it",
    "ed_vit_fusion": "is fused of models, not trained from scratch",
    "quantized_vit": "is made of a trained model",
    "image_codec": "compresses images; `ci2p` is a ViT on its maps",
    "timm": "any model by its name",
    "uneven_vit": "is the plain `vit` where nothing is extracted",
    "unirgb_ir": "takes images of two modalities",
}
SCORES = ("expected_length_distortion", "ntk_condition", "parameters", "flops")
"""Of untrained models, and of them the trivial ones last."""


@dataclass(frozen=True)
class Task:
    """A data set of so many images, and how long is trained on it."""

    name: str
    data: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    epochs: int
    img_size: int = 28
    in_chans: int = 1
    patch_size: int = 7

    @property
    def images(self) -> Mapping[str, Any]:
        return {"img_size": self.img_size, "in_chans": self.in_chans, "patch_size": self.patch_size}


def fashion(count: int, epochs: int) -> Task:
    data = {"name": "fashion_mnist", "val_fraction": 1 / 60}
    if count < 60_000:
        data["train_limit"] = count
    return Task(f"Fashion-MNIST, {count:,} images", data, SHIFTED, epochs)


FASHION = {1000: fashion(1000, 15), 5000: fashion(5000, 4), 60_000: fashion(60_000, 1)}
CIFAR = Task("CIFAR-10, 5,000 images", cifar("cifar10", 10, 5000), FLIPPED, 4, 32, 3, 8)


@dataclass(frozen=True)
class Plan:
    """What is grown: architectures by name, with their settings for a task."""

    task: Task
    architectures: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Step]
    seeds: Sequence[int]
    refused: Mapping[str, str] = field(default_factory=dict)

    def epochs_in_time_of(self, name: str) -> int:
        """Epochs of the baseline that take about as long as the architecture's, at least 1.

        Times are rounded to powers of the root of 2, so that baselines are shared.
        """
        steps_of_root = round(2 * math.log2(self.steps[name].of_baseline))
        return max(1, round(self.task.epochs * 2 ** (steps_of_root / 2)))

    def blueprint(self) -> Blueprint:
        """A stage per architecture, and one of the baseline per number of epochs."""
        lengths = {self.epochs_in_time_of(name) for name in self.architectures}
        stages = {name: self.stage(name, self.task.epochs) for name in self.architectures}
        for epochs in sorted(lengths - {self.task.epochs}):
            stages[f"{BASELINE}, {epochs} epochs"] = self.stage(BASELINE, epochs)
        return Blueprint.read({"name": "architectures", "stages": stages})

    def stage(self, name: str, epochs: int) -> dict[str, Any]:
        return {
            "architecture": {"name": name, **self.architectures[name]},
            "data": dict(self.task.data),
            "augmentation": dict(self.task.augmentation),
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
            "schedule": {"name": "cosine", "warmup_epochs": 0.1 * epochs},
            "epochs": epochs,
            "batch_size": 50,
            "clip_grad_norm": 1.0,
            "checkpoints": "last",
            "grid": {"seed": list(self.seeds)},
        }


def widened(name: str, task: Task) -> dict[str, Any]:
    """Settings of an architecture for a task that give about 300,000 parameters.

    Raises InvalidConfig where no width goes with them.
    """
    fields = plugins("architecture")[name].config.model_fields
    images = {key: value for key, value in task.images.items() if key in fields}
    settings = {**images, **SETTINGS.get(name, SIZES)}
    if name in BY_TASK:
        settings |= BY_TASK[name](task)
    if "embed_dim" in settings or "embed_dim" not in fields:
        return settings
    sizes, faults = {}, []
    for width in WIDTHS:
        try:
            sizes[width] = count(
                section("architecture", {"name": name, **settings, "embed_dim": width})
            )
        except InvalidConfig as fault:
            faults.append(fault)
    if not sizes:
        raise faults[0]
    return {**settings, "embed_dim": min(sizes, key=lambda width: abs(sizes[width] - PARAMETERS))}


def count(architecture: Section) -> int:
    """Parameters of a model that is built without memory."""
    with meta_device():
        model = architecture(OUTPUTS)
    return sum(parameter.numel() for parameter in model.parameters())


def planned(task: Task, names: Sequence[str], args: argparse.Namespace) -> Plan:
    """Widths that fit, and how fast they are: timed once, and written down."""
    settings, steps, refused = {}, {}, {}
    for name in dict.fromkeys([BASELINE, *names]):
        try:
            settings[name] = widened(name, task)
            pair = [section("architecture", {"name": n, **settings[n]}) for n in (name, BASELINE)]
            steps[name] = measured_step(*pair, args.folder / "steps.json")
        except Exception as fault:  # whatever an architecture says: the others are still compared
            if name == BASELINE:
                raise
            settings.pop(name, None)
            refused[name] = str(fault).strip().partition("\n")[0]
    return Plan(task, settings, steps, range(args.seeds), refused)


def grown(design: Blueprint, folder: Path, args: argparse.Namespace) -> tuple[Zoo, pd.DataFrame]:
    """The zoo, and its rows; growing goes on where it was stopped."""
    options: dict[str, Any] = {"precision": "fp32", "compiled": False, "stacked": 1}
    data_dir = args.folder / "data"
    growth = grow(design, folder, workers=args.workers, threads=1, data_dir=data_dir, **options)
    if not growth.complete:
        raise SystemExit(repr(growth))
    models = growth.zoo.models(measured=False)
    return growth.zoo, models[models["id"].isin([model.id for model in growth.plan.models])]


def compared(plan: Plan, args: argparse.Namespace) -> Iterator[Comparison]:
    """Each architecture with the baseline of the same seeds, by test accuracy."""
    folder = args.folder / plan.task.name.replace(", ", "-").replace(" ", "-").replace(",", "")
    _, models = grown(plan.blueprint(), folder, args)

    def accuracy(stage: str) -> list[float]:
        return list(models[models["stage"] == stage].sort_values("seed")["test_accuracy"])

    for name in plan.architectures:
        epochs = plan.epochs_in_time_of(name)
        same_time = BASELINE if epochs == plan.task.epochs else f"{BASELINE}, {epochs} epochs"
        yield Comparison(
            task=plan.task.name,
            architecture=name,
            parameters=count(section("architecture", {"name": name, **plan.architectures[name]})),
            accuracy=accuracy(name),
            same_epochs=accuracy(BASELINE),
            same_time=accuracy(same_time),
            epochs=(plan.task.epochs, epochs),
            step=plan.steps[name],
        )


def topologies() -> list[dict[str, Any]]:
    """Plain ViTs of random depth, width, heads, MLPs and patches; the same in every run."""
    noise, drawn = np.random.default_rng(0), []
    while len(drawn) < TOPOLOGIES:
        choice = {
            "depth": int(noise.integers(1, 9)),
            "embed_dim": int(noise.choice([32, 48, 64, 96, 128])),
            "num_heads": int(noise.choice([2, 4, 8])),
            "mlp_ratio": float(noise.choice([1, 2, 4])),
            "patch_size": int(noise.choice([4, 7, 14])),
        }
        if choice not in drawn:
            drawn.append(choice)
    return drawn


def shortened(task: Task, args: argparse.Namespace) -> Task:
    return replace(task, epochs=args.epochs) if args.epochs else task


def ranked(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Kendall's tau of each score of the untrained topologies with their accuracy."""
    task = shortened(FASHION[TOPOLOGY_IMAGES], args)
    plan = Plan(task, {BASELINE: task.images}, {}, range(args.seeds))
    stage = plan.stage(BASELINE, task.epochs) | {"checkpoints": [0]}
    settings = topologies()[: args.topologies]
    stage["variants"] = [{f"architecture.{k}": v for k, v in each.items()} for each in settings]
    design = Blueprint.read({"name": "topologies", "stages": {"topology": stage}})
    zoo, models = grown(design, args.folder / "topologies", args)
    values = measure(
        zoo, list(SCORES), models=list(models["id"]), epochs=[0], data_dir=args.folder / "data"
    )
    model_values = values[values["part"] == ""].pivot(
        index="model", columns="measure", values="value"
    )
    table = models.set_index("id").join(model_values)
    factors = [f"architecture.{name}" for name in settings[0]]
    return tau_rows(table.groupby(factors)[["test_accuracy", *SCORES]].mean(), SCORES)


def main() -> int:
    args = parsed()
    tasks = [shortened(FASHION[count], args) for count in args.images]
    if "cifar10" not in args.without:
        subset(args.data_dir / "cifar10", args.folder / "data" / "cifar10")
        tasks.append(shortened(CIFAR, args))
    args.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    names = args.only or [name for name in plugins("architecture") if name not in LEFT_OUT]
    results: dict[str, Any] = {"rows": [], "refused": {}, "tau": []}
    for plan in [planned(task, names, args) for task in tasks]:
        results["rows"] += rows_of(list(compared(plan, args)))
        results["refused"] |= plan.refused
    if "topologies" not in args.without:
        results["tau"] = ranked(args)
    (args.folder / "architectures.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.folder / "architectures.md").write_text(markdown(results))
    print(f"{time.monotonic() - started:.0f} s\n\n{markdown(results)}")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="has cifar10")
    parser.add_argument("--folder", type=Path, default=Path("architectures"))
    parser.add_argument("--seeds", type=int, default=3, help="models of each architecture")
    known = sorted(plugins("architecture"))
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help="architectures")
    parser.add_argument("--images", nargs="*", type=int, choices=FASHION, default=list(FASHION))
    parser.add_argument("--without", nargs="+", choices=("cifar10", "topologies"), default=[])
    parser.add_argument("--topologies", type=int, default=TOPOLOGIES)
    parser.add_argument("--epochs", type=int, help="of all tasks, for a trial")
    parser.add_argument("--workers", type=int, default=2, help="models that are grown at a time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
