"""Benchmark: what each part of MiniViT is worth on real images; see docs/compression.md.

Vision transformers of 12 blocks are trained as teachers; compact students of 6 sets of weights, or
of one, are trained for a quarter of the teachers' steps, all for as many, with the parts of the
method added one by one, from scratch and from their teacher. Every student of a row has another
teacher (another seed), so differences between rows are taken seed by seed.

    python benchmarks/compression.py --data Fashion-MNIST --as-long
    python benchmarks/compression.py --data CIFAR-10 --data-dir DIR

Without `--data` both, as far as they are found; about 20 minutes each on two quiet cores, 10 more
with each of `--as-long` and `--starts`. What is in the folder is not grown again. The rows:

    a   plain sharing: blocks of a group are equal, norms and all
    b   + transformations: own norms, head mixing, image relative position encoding
    c   + prediction distillation from the teacher
    d   + weight distillation: relations of queries, keys and values, and of hidden states
    d4  the same, trained for as long as the teacher (`--as-long`)

What starts from a teacher has its steps, too; so the teachers are also trained on for as long as a
student is, as a control. With `--starts` the students of row d start in each way that the operator
has, and are measured after every epoch.

Prints tables in Markdown: means with 95 % intervals of Student's t. The status is 1 where a student
from its teacher with all parts loses more than 0.5 points (share 2) or 3 points (one set).
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from vitarium import Blueprint, Zoo, grow, measure
from vitarium.core.errors import VitariumError
from vitarium.core.registry import section
from vitarium.data import load as dataset

VIT = {
    "name": "vit",
    "embed_dim": 48,
    "depth": 12,
    "num_heads": 3,
    "class_token": False,
    "global_pool": "avg",
}
DATA: dict[str, tuple[Any, dict[str, Any]]] = {
    "Fashion-MNIST": ("fashion_mnist", {"img_size": 28, "patch_size": 7, "in_chans": 1}),
    "CIFAR-10": ("cifar10", {"img_size": 32, "patch_size": 8, "in_chans": 3}),
}
"""Data set, and how the images are cut: 16 patches of each."""
TIMES_AS_LONG = 4
"""Teachers are trained for so many times the students' epochs."""
BARE = {
    "separate_norms": False,
    "mix_before": False,
    "mix_after": False,
    "relative_positions": None,
}
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a": (BARE, {"name": "supervised"}),
    "b": ({}, {"name": "supervised"}),
    "c": ({}, {"name": "soft_distillation", "alpha": 1.0}),
    "d": ({}, {"name": "weight_distillation"}),
    "d4": ({}, {"name": "weight_distillation"}),
}
"""What a row's students are built of, and what they learn."""
NAMES = {
    "a": "plain sharing",
    "b": "+ transformations",
    "c": "+ prediction distillation",
    "d": "+ weight distillation",
    "d4": "the same, as long as the teacher",
}
SHARES: dict[Any, tuple[str, ...]] = {2: ("a", "b", "c", "d", "d4"), "all": ("d", "d4")}
"""The rows of each pattern; one set of weights, and what is trained for longer, starts from its
teacher alone."""
STARTS = ("first", "mean")
"""What a shared matrix is made of, see the operator."""
LOSS = {2: 0.5, "all": 3.0}
"""Points that a student with everything may lose against its teacher."""


@dataclass(frozen=True)
class Settings:
    """What all models of a run have in common."""

    folder: Path
    seeds: int
    epochs: int
    images: int
    data_dir: Path | None
    workers: int | None
    as_long: bool
    starts: bool


def recipe(settings: Settings, data: Any) -> dict[str, Any]:
    """How teachers and students alike are trained."""
    own = data if isinstance(data, dict) else {"name": data}
    return {
        "data": {**own, "train_limit": settings.images, "val_fraction": 0.02},
        "augmentation": {"name": "standard", "crop": "random", "padding": 2},
        "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "clip_grad_norm": 1.0,
        "epochs": settings.epochs,
        "batch_size": 64,
        "checkpoints": "last",
    }


def stage(row: str, share: Any) -> str:
    return f"{row}-share-{share}"


def teachers(settings: Settings, data: Any, cut: dict[str, Any]) -> dict[str, Any]:
    return {
        "architecture": {**VIT, **cut},
        **recipe(settings, data),
        "epochs": TIMES_AS_LONG * settings.epochs,
        "grid": {"seed": list(range(1, settings.seeds + 1))},
    }


def longer(settings: Settings, data: Any) -> dict[str, Any]:
    """The teachers, trained on for as long as a student is."""
    return {"start": {"stage": "teacher", "keep_head": True}, **recipe(settings, data)}


def from_scratch(
    settings: Settings, data: Any, cut: dict[str, Any], row: str, share: Any, ids: list[str]
) -> dict[str, Any]:
    """A student of each teacher, with random weights."""
    parts, objective = PARTS[row]
    built = {
        **VIT,
        **cut,
        "name": "mini_deit",
        "fc_norm": True,
        "share": share,
        "mixing_init": "identity",
        **parts,
    }
    learns = [
        objective if objective["name"] == "supervised" else {**objective, "teacher": id}
        for id in ids
    ]
    return {
        "architecture": built,
        **recipe(settings, data),
        "variants": [{"seed": 1 + number, "objective": own} for number, own in enumerate(learns)],
    }


def from_teacher(settings: Settings, data: Any, row: str, share: Any) -> dict[str, Any]:
    """A student of each teacher, with its weights and its head."""
    parts, objective = PARTS[row]
    operator = {"name": "minivit", "share": share, **parts}
    return {
        "start": {"stage": "teacher", "operator": operator, "keep_head": True},
        **recipe(settings, data),
        "epochs": settings.epochs * (TIMES_AS_LONG if row == "d4" else 1),
        "objective": objective,
    }


def started(settings: Settings, data: Any, init: str, share: Any) -> dict[str, Any]:
    """Row d with another start; every epoch is kept."""
    found = from_teacher(settings, data, "d", share)
    found["start"]["operator"]["init"] = init
    return {**found, "checkpoints": "all"}


def grown(settings: Settings, name: str) -> Zoo:
    """The zoo of a data set, with all of its models."""
    data, cut = DATA[name]
    if name == "CIFAR-10" and not _is_there(data, settings):
        data = {"name": "hf", "folder": "cifar10"}
    folder = settings.folder / f"{name.lower()}-{settings.images}x{settings.epochs}"

    def more(stages: dict[str, Any]) -> Zoo:
        blueprint = Blueprint.read({"name": name.lower(), "stages": stages})
        growth = grow(
            blueprint,
            folder,
            workers=settings.workers,
            data_dir=settings.data_dir,
            precision="fp32",
            compiled=False,
        )
        if not growth.complete or growth.diverged:
            raise SystemExit(f"{growth.failed} {growth.skipped} {growth.diverged}")
        return growth.zoo

    first = {"teacher": teachers(settings, data, cut)}
    models = more(first).models()
    of_stage = models[models["stage"] == "teacher"].sort_values("seed")
    ids = of_stage["id"].tolist()
    rows = [(row, share) for share, rows in SHARES.items() for row in rows]
    rows = [(row, share) for row, share in rows if row != "d4" or settings.as_long]
    return more(
        first
        | {"longer": longer(settings, data)}
        | {stage(r, s) + "-teacher": from_teacher(settings, data, r, s) for r, s in rows}
        | {
            stage(r, s) + "-scratch": from_scratch(settings, data, cut, r, s, ids)
            for r, s in rows
            if s != "all" and r != "d4"
        }
        | {
            f"{init}-share-{share}": started(settings, data, init, share)
            for init in STARTS
            for share in SHARES
            if settings.starts
        }
    )


def scores(zoo: Zoo, name: str) -> np.ndarray:
    """Test accuracies of a stage in per cent, one per teacher, in the order of their seeds."""
    models = zoo.models().set_index("id")
    seeds = models.loc[models["stage"] == "teacher", "seed"].to_dict()
    found = {
        seeds.get(one["parent"], one["seed"]): 100 * one["test_accuracy"]
        for one in models[models["stage"] == name].to_dict("records")
    }
    return np.array([found[seed] for seed in sorted(found)])


def parameters(zoo: Zoo, name: str) -> int:
    """Of a model of a stage."""
    models = zoo.models().set_index("stage")
    tensors = zoo.checkpoint(models.loc[[name], "id"].iloc[0]).tensors
    return sum(stored.count for stored in tensors.values())


def interval(values: np.ndarray) -> str:
    """Mean and half the width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} ± {half:.2f}"


def tables(zoo: Zoo, name: str, data_dir: Path | None = None) -> tuple[str, bool]:
    """The data set's tables, and whether no student with everything loses too much."""
    models = zoo.models().set_index("stage")
    done = models[models["status"] == "finished"].index.value_counts()
    teacher = scores(zoo, "teacher")
    there = set(done[done == len(teacher)].index)
    lines = [
        f"### {name}",
        "",
        f"Teachers, {parameters(zoo, 'teacher'):,} parameters: {interval(teacher)} % of test "
        "images right; trained on for as long as the students: "
        f"{interval(scores(zoo, 'longer'))} %.",
        "",
    ]
    students, kept = students_table(zoo, teacher, there)
    lines += [*students, "", *gains_table(zoo)]
    if all(f"{init}-share-{share}" in there for init in STARTS for share in SHARES):
        lines += ["", *starts_table(zoo, data_dir)]
    return "\n".join([*lines, ""]), kept


def students_table(zoo: Zoo, teacher: np.ndarray, there: set[str]) -> tuple[list[str], bool]:
    """A line per row that is there, and whether the last one of each pattern is good enough."""
    lines = [
        "| students | parameters | from scratch | from the teacher | lost against the teacher |",
        "|---|---|---|---|---|",
    ]
    last: dict[Any, float] = {}
    for share, rows in SHARES.items():
        for row in rows:
            own = stage(row, share)
            if f"{own}-teacher" not in there:
                continue
            begun = f"{own}-scratch"
            scratch = interval(scores(zoo, begun)) if begun in there else ""
            started = scores(zoo, f"{own}-teacher")
            count, lost = parameters(zoo, f"{own}-teacher"), teacher - started
            lines.append(
                f"| share {share}, ({row}) {NAMES[row]} | {count:,} | {scratch} "
                f"| {interval(started)} | {interval(lost)} |"
            )
            last[share] = lost.mean()
    return lines, all(last[share] <= LOSS[share] for share in LOSS)


def gains_table(zoo: Zoo) -> list[str]:
    """What each part adds, and what starting from the teacher does."""
    lines = ["| what it adds, in points | from scratch | from the teacher |", "|---|---|---|"]
    for before, after in ("ab", "bc", "cd"):
        gains = [
            scores(zoo, f"{stage(after, 2)}-{how}") - scores(zoo, f"{stage(before, 2)}-{how}")
            for how in ("scratch", "teacher")
        ]
        cells = " | ".join(map(interval, gains))
        lines.append(f"| {NAMES[after].removeprefix('+ ')} ({after} - {before}) | {cells} |")
    told = []
    for row in "abcd":
        own = stage(row, 2)
        gain = scores(zoo, f"{own}-teacher") - scores(zoo, f"{own}-scratch")
        told.append(f"({row}) {interval(gain)}")
    return [*lines, "", "Starting from the teacher's weights adds, in points: " + ", ".join(told)]


def starts_table(zoo: Zoo, data_dir: Path | None) -> list[str]:
    """How good students are right after they are made, and after each epoch."""
    models = zoo.models().set_index("stage")
    tables = {}
    for share in SHARES:
        for init in STARTS:
            ids = models.loc[f"{init}-share-{share}", "id"].tolist()
            found = measure(zoo, "accuracy", models=ids, epochs="all", data_dir=data_dir)
            whole = found[found["part"] == ""].pivot(index="model", columns="epoch", values="value")
            tables[share, init] = 100 * whole
    epochs = next(iter(tables.values())).columns
    lines = [
        "| starts from | " + " | ".join(f"epoch {epoch}" for epoch in epochs) + " |",
        "|---|" + "---|" * len(epochs),
    ]
    for (share, init), accuracies in tables.items():
        cells = " | ".join(interval(accuracies[epoch].to_numpy()) for epoch in epochs)
        lines.append(f"| share {share}, {init} | {cells} |")
    return lines


def draw(zoos: dict[str, Zoo], file: Path) -> None:
    """Each student's accuracy minus its teacher's, a panel for each data set."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "vitarium", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, len(zoos), figsize=(4.8 * len(zoos), 3.4), squeeze=False)
    rows = [(row, share) for share, rows in SHARES.items() for row in rows]
    for panel, (name, zoo) in zip(panels[0], zoos.items(), strict=True):
        teacher, stages = scores(zoo, "teacher"), set(zoo.models()["stage"])
        for how, color, aside in (("scratch", "#9a6700", -0.14), ("teacher", "#1f6feb", 0.14)):
            panel.plot([], [], "o", color=color, label=f"from {'the ' * (how != 'scratch')}{how}")
            for place, (row, share) in enumerate(rows):
                own = f"{stage(row, share)}-{how}"
                if own in stages:
                    gained, where = scores(zoo, own) - teacher, place + aside
                    panel.plot([where] * len(gained), gained, "o", color=color, alpha=0.45, ms=4)
                    panel.hlines(gained.mean(), where - 0.12, where + 0.12, color=color, lw=2.5)
        panel.axhline(0, color="#57606a", lw=0.8)
        panel.set_xticks(
            range(len(rows)),
            [f"({row})\n{'one set' if share == 'all' else 'share 2'}" for row, share in rows],
        )
        panel.set(title=name, ylabel="points above the teacher")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def _is_there(data: Any, settings: Settings) -> bool:
    try:
        dataset.load(section("dataset", data), settings.data_dir)
    except VitariumError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("compression-zoos"))
    parser.add_argument("--data", choices=list(DATA), help="one of the two; default: both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of the students")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--as-long", action="store_true", help="add the rows d4")
    parser.add_argument("--starts", action="store_true", help="compare ways to start, too")
    parser.add_argument("--figure", type=Path, help="draw it as SVG")
    parser.add_argument("--workers", type=int)
    asked = vars(parser.parse_args())
    only, picture = asked.pop("data"), asked.pop("figure")
    settings = Settings(**asked)
    zoos = {}
    for name, (data, _) in DATA.items():
        if only not in (None, name):
            continue
        others = [{"name": "hf", "folder": "cifar10"}] if name == "CIFAR-10" else []
        if any(_is_there(one, settings) for one in [data, *others]):
            zoos[name] = grown(settings, name)
        else:
            Console(stderr=True).print(f"{name} is not on this machine: left out")
    found = [tables(zoo, name, settings.data_dir) for name, zoo in zoos.items()]
    for text, _ in found:
        print(text)
    if picture and zoos:
        draw(zoos, picture)
    sys.exit(not found or not all(kept for _, kept in found))


if __name__ == "__main__":
    main()
