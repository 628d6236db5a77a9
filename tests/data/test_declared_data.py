"""Data that vitarium knows nothing of: what is declared holds, and the hub is asked with care."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitarium.core.errors import DataNotFound, InvalidData, InvalidInput
from vitarium.core.registry import section
from vitarium.data.base import DataConfig, Split
from vitarium.data.expected import expected, train_size
from vitarium.data.load import load
from vitarium.data.splits import with_splits


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, 20 training, 6 validation and 4 test images."""
    for part, count in (("train", 20), ("val", 6), ("test", 4)):
        for number in range(count):
            place = tmp_path / "mine" / part / ("cat" if number % 2 else "dog")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 6), (number, 0, 0)).save(place / f"{number}.png")
    return tmp_path


def mine(**declared):
    return section("dataset", {"name": "image_folder", "folder": "mine", **declared})


@pytest.mark.parametrize("limit", [{}, {"train_limit": 5}])
def test_planning_knows_the_number_of_training_images_where_validation_is_apart(folder, limit):
    chosen = mine(num_train=20, num_val=6, **limit)
    planned = train_size(expected(chosen), chosen.config)
    assert planned == len(load(chosen, folder).train)


@pytest.mark.parametrize("limit", [{}, {"train_limit": 5}])
def test_planning_knows_the_number_of_training_images_where_validation_is_taken(folder, limit):
    (folder / "mine" / "test").rename(folder / "elsewhere")
    chosen = mine(num_train=20, val_fraction=0.23, **limit)
    planned = train_size(expected(chosen), chosen.config)
    assert planned == len(load(chosen, folder).train)


def test_declared_validation_images_are_checked(folder):
    with pytest.raises(InvalidData, match="has 6 validation images of its own, but num_val says 7"):
        load(mine(num_val=7), folder)
    (folder / "mine" / "test").rename(folder / "elsewhere")
    with pytest.raises(InvalidData, match="has 0 validation images of its own, but num_val says 6"):
        load(mine(num_val=6), folder)


@pytest.mark.parametrize("part", ["training", "validation", "test"])
@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_of_no_class_is_refused(part, label):
    def split(wrong: bool) -> Split:
        labels = torch.tensor([0, 1, label if wrong else 1])
        return Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), labels)

    splits = [split(part == which) for which in ("training", "validation", "test")]
    names = dict(zip(("train", "val", "test"), splits, strict=True))
    with pytest.raises(InvalidData, match=f"label {label} among its {part} images"):
        with_splits("x", "ab", DataConfig(), **names, mean=(0.0,), std=(1.0,))


def parquet(place: Path, labels: list, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    place.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value(kind)})
    for part in ("train", "test"):
        images = [
            Image.fromarray(np.full((4, 4, 3), i, dtype=np.uint8)) for i in range(len(labels))
        ]
        rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        rows.to_parquet(str(place / f"{part}.parquet"))


@pytest.mark.parametrize(("labels", "kind"), [(["a", "b"] * 5, "string"), ([0.5] * 10, "float64")])
def test_labels_that_are_no_numbers_of_classes_are_refused(tmp_path, labels, kind):
    parquet(tmp_path / "rows", labels, kind)
    with pytest.raises(InvalidData, match=r"column 'label' holds (string|double), not numbers"):
        load(section("dataset", {"name": "hf", "folder": "rows"}), tmp_path)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        DataNotFound, match="cannot get 'some/images' from the hub: the hub cannot be reached"
    ):
        load(section("dataset", {"name": "hf", "dataset": "some/images"}))


def test_code_from_the_hub_is_never_run(monkeypatch):
    datasets = pytest.importorskip("datasets")
    options = {}

    def stop(*names: object, **given: object) -> None:
        options.update(given)
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", stop)
    with pytest.raises(DataNotFound):
        load(section("dataset", {"name": "hf", "dataset": "some/images"}))
    assert options == {"trust_remote_code": False}


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidInput, match=r"pip install 'vitarium\[hf\]'"):
        load(section("dataset", {"name": "hf", "dataset": "any/thing"}))
