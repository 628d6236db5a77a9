"""Blueprints and models that are small enough to train in a test, and a published zoo in small."""

import csv
import gc
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

# one thread per process, also in those that tests start: pytest's workers share the cores. numba
# would set torch's number, too, and two threads of two workers wait for each other most of the time
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
# umap runs as Python: for its few points here numba would compile for a minute
os.environ["NUMBA_DISABLE_JIT"] = "1"

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch.nn import functional as F

torch.set_num_threads(1)
# until all tests are collected: what is imported stays, and looking through it takes a third of that
gc.disable()
settings.register_profile("the same every time", derandomize=True, deadline=None)
settings.load_profile("the same every time")

TINY = {
    "name": "vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: at the end there are short ones to share out."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries complain about what they take for leaks


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test decodes or measures reaches the user's cache, nor comes from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITARIUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """In tests processes end, and machines do not: what is written need not be on the disk yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_width_of_a_terminal() -> Iterator[None]:
    """Tables are as wide as they need, whatever terminal pytest is started from.

    readline, which pytest imports, sets the width for processes that are started without `env`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        os.unsetenv("COLUMNS")
        yield


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`build_once(name, build)`: the folder that `build(folder)` makes, once for all of pytest's workers.

    It is to be read, or copied.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def build_folder(name: str, build: Callable[[Path], object]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                unfinished = shared / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                build(unfinished)
                unfinished.rename(folder)
        return folder

    return build_folder


def write_records(folder: Any, records: list[Any]) -> None:
    """As earlier versions did."""
    from dataclasses import asdict

    from vitarium.core import files

    files.write_lines(folder.path / "records.jsonl", [asdict(record) for record in records])


def _measured(model: str) -> Any:
    """A number as it is kept now."""
    from vitarium.zoo.records import Measured

    of_what = ("test", 10, "images", False, "weights")
    return Measured(model, 1, None, None, "loss", "{}", "", 0.5, "nats", "digits", *of_what)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts disks of a size in the words of mount, e.g. "600k"."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def remount_read_only() -> Callable[[Path], None]:
    """Lets a disk be read and no longer written."""

    def remount(disk: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    return remount


@pytest.fixture
def tiny() -> dict[str, Any]:
    return _tiny()


@pytest.fixture(scope="session")
def _grown(build_once: Callable[..., Path]) -> Path:
    from vitarium import Blueprint, grow

    def build(folder: Path) -> None:
        plain: Any = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
        zoo = grow(Blueprint.read(_tiny()), folder / "zoo", progress=False, **plain).zoo
        zoo.models()  # with an index, so that whoever reads the folder writes nothing

    return build_once("grown", build) / "zoo"


@pytest.fixture
def grown_zoo(_grown: Path, tmp_path: Path) -> Any:
    """A zoo of the tiny blueprint's models, trained; a copy, so that it can be changed."""
    from vitarium import Zoo

    return Zoo.open(shutil.copytree(_grown, tmp_path / "grown"))


@pytest.fixture
def imported_digits(tmp_path: Path) -> Callable[..., list[str]]:
    """Brings copies of a zoo's fine-tuned models into it once more, as files with a table of these
    columns, a mapping for each of them; gives their ids."""

    def bring(zoo: Any, *columns: dict[str, Any], change: Any = None) -> list[str]:
        from safetensors.torch import save_file

        from vitarium import import_zoo

        folder = tmp_path / "files"
        folder.mkdir()
        trained = [id for id in zoo.ids() if zoo.spec(id).stage == "finetune"]
        rows = []
        for number, (id, own) in enumerate(zip(trained, columns, strict=False)):
            weights = zoo.state_dict(id)
            save_file(change(weights) if change else weights, folder / f"{number}.safetensors")
            architecture = zoo.spec(id).origin.architecture
            sizes = {f"architecture.{k}": v for k, v in architecture.config.factors().items()}
            about = {"file": f"{number}.safetensors", "architecture": architecture.name}
            rows.append({**about, **{k: v for k, v in sizes.items() if v is not None}, **own})
        with (folder / "models.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            table.writeheader()
            table.writerows(rows)
        return import_zoo(folder, zoo)

    return bring


def _tiny() -> dict[str, Any]:
    """A two-stage blueprint of 2 + 4 tiny models on scikit-learn's digits."""
    return {
        "name": "tiny",
        "stages": {
            "pretrain": {
                "architecture": dict(TINY),
                "data": {"name": "digits", "train_limit": 96},
                "augmentation": {"name": "standard", "crop": "random", "padding": 1},
                "optimizer": {"name": "adamw", "lr": 0.003},
                "epochs": 2,
                "batch_size": 32,
                "grid": {"seed": [1, 2]},
            },
            "finetune": {
                "start": "pretrain",
                "data": {"name": "digits", "split_seed": 1, "train_limit": 64},
                "epochs": 1,
                "batch_size": 32,
                "grid": {"optimizer.lr": [0.01, 0.001]},
                "optimizer": {"name": "sgd", "momentum": 0.9},
            },
        },
    }


@pytest.fixture(scope="session")
def written_once(build_once: Callable[..., Path]) -> Path:
    """What `written_zoo` copies; it has no index."""
    return build_once("written", _write_without_weights) / "zoo"


@pytest.fixture
def written_zoo(written_once: Path, tmp_path: Path) -> Any:
    """A zoo of the tiny blueprint's models with made-up metrics, and without weights."""
    from vitarium import Zoo

    return Zoo.open(shutil.copytree(written_once, tmp_path / "written"))


def _write_without_weights(path: Path) -> None:
    from vitarium import Blueprint, Zoo, plan
    from vitarium.zoo import About

    zoo = Zoo.create(path / "zoo")
    for number, spec in enumerate(plan(Blueprint.read(_tiny())).models):
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        for epoch in range(spec.recipe.epochs + 1):
            metrics = {
                "test_accuracy": 0.1 + epoch / 4 + number / 100,
                "epoch_lr": 0.5 / (epoch + 1),
            }
            folder.commit(epoch, metrics | ({"seconds": 1.5} if epoch else {}), None, None)
        folder.finish("finished")


@pytest.fixture
def write_blueprint(tmp_path: Path) -> Any:
    """Write a blueprint as a YAML file, and give its path."""
    import json

    def write(values: Any, name: str = "blueprint.yaml") -> Path:
        path = tmp_path / name
        # JSON is YAML, and json knows how to indent
        path.write_text(values if isinstance(values, str) else json.dumps(values, indent=1))
        return path

    return write


@pytest.fixture(scope="session")
def theirs() -> Any:
    """What writes published zoos: formats/published.py."""
    return importlib.import_module("formats.published")


@pytest.fixture(scope="session")
def published_once(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `published` copies."""
    folder: Path = theirs.write_zoo(tmp_path_factory.mktemp("published") / "published")
    return folder


@pytest.fixture
def published(published_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published zoo of three models, of timm's smallest ViT so that it is quick."""
    from vitarium.formats.importers import vit_zoo

    monkeypatch.setitem(vit_zoo.MODELS, "vit_test_16", "test_vit")
    return Path(shutil.copytree(published_once, tmp_path / "published"))


@pytest.fixture(scope="session")
def _kept(build_once: Callable[..., Path]) -> Path:
    return build_once("kept", _write_with_weights) / "zoo"


@pytest.fixture
def kept_zoo(_kept: Path, tmp_path: Path) -> Any:
    """A zoo of the tiny blueprint's models: random weights that change a little every epoch."""
    from vitarium import Zoo

    return Zoo.open(shutil.copytree(_kept, tmp_path / "zoo"))


def _write_with_weights(path: Path) -> None:
    from vitarium import Blueprint, Zoo, plan
    from vitarium.zoo import About, Record, records

    zoo = Zoo.create(path / "zoo")
    blueprint = Blueprint.read(_tiny())
    zoo.add_blueprint(blueprint)
    noise = torch.Generator().manual_seed(0)
    for spec in plan(blueprint).models:
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        weights = spec.recipe.build(10).state_dict()
        if spec.parent:
            weights |= {n: t for n, t in zoo.state_dict(spec.parent).items() if "head" not in n}
        for epoch in range(spec.recipe.epochs + 1):
            metrics = {"val_accuracy": epoch / 10, "seconds": 1.0}
            keep = epoch != 1 or spec.stage == "finetune"
            last = epoch == spec.recipe.epochs
            folder.commit(
                epoch,
                metrics,
                weights if keep else None,
                None if last else {"model/x": torch.ones(1)},
            )
            weights = {
                name: tensor * (1 + 1e-3 * torch.randn(tensor.shape, generator=noise))
                if epoch
                else tensor  # the first epoch trains nothing: equal tensors
                for name, tensor in weights.items()
            }
        write_records(folder, [Record(0, "weight_norm", {"p": 2}, 1.5, "")])
        folder.finish("finished")
    records.add(zoo.path, [_measured(id) for id in zoo.ids()])


@pytest.fixture(scope="session")
def examples() -> Any:
    """The 359 test images of scikit-learn's digits, of 8 by 8 pixels, in ten classes."""
    from vitarium.core.registry import section
    from vitarium.data import load as dataset
    from vitarium.data.loader import Batches
    from vitarium.evaluation.data import EvalData

    input_size = (1, 8, 8)
    data = dataset.load(section("dataset", "digits"))
    augmentation = section("augmentation", "standard")(input_size, data.num_classes)
    return EvalData(Batches(data, augmentation, input_size, batch_size=1, seed=0), "test")


def _untrained(seed: int) -> torch.nn.Module:
    """A ViT of two blocks, two heads and width 16."""
    from vitarium import create_model

    torch.manual_seed(seed)
    return create_model(
        "vit",
        num_classes=10,
        img_size=8,
        patch_size=2,
        in_chans=1,
        embed_dim=16,
        depth=2,
        num_heads=2,
    )


def _trained(examples: Any, seed: int) -> torch.nn.Module:
    """After 300 steps: most images are right."""
    model = _untrained(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    batches = list(examples.of("train").batches(64))
    for step in range(300):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="session")
def _models(build_once: Callable[..., Path], examples: Any) -> list[torch.nn.Module]:
    def build(folder: Path) -> None:
        for seed in (1, 2):
            torch.save(_trained(examples, seed).state_dict(), folder / f"{seed}.pt")

    folder = build_once("trained", build)
    models = [_untrained(seed) for seed in (1, 2)]
    for seed, model in enumerate(models, 1):
        model.load_state_dict(torch.load(folder / f"{seed}.pt", weights_only=True))
        model.eval().requires_grad_(False)
    return models


@pytest.fixture
def subject(_models: list[torch.nn.Module], examples: Any) -> Any:
    """A trained model on `examples`, as measures are given it."""
    from vitarium.evaluation.inputs import EvalModel

    return EvalModel("aaaaaaaaaaaa@1", deepcopy(_models[0]), examples)


@pytest.fixture
def other(_models: list[torch.nn.Module], examples: Any) -> Any:
    """A model of another seed."""
    from vitarium.evaluation.inputs import EvalModel

    return EvalModel("bbbbbbbbbbbb@1", deepcopy(_models[1]), examples)
