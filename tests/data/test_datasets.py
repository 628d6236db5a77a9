"""Data sets: what they hold, how they are split, and what is said when they are not there."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import needs
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.core.registry import plugins, section
from vitarium.data.base import DataConfig, DataFolders, Split, dataset
from vitarium.data.expected import expected, train_size
from vitarium.data.load import load
from vitarium.data.splits import with_splits, with_test_split
from vitarium.testing import check_dataset


def pictures(split: Split) -> set[bytes]:
    return {split.images[i].numpy().tobytes() for i in range(len(split))}


@pytest.mark.parametrize(("name", "size", "train"), [("digits", 8, 1294), ("mnist5k", 28, 3600)])
def test_what_comes_inside_packages_is_there(name, size, train):
    found = load(section("dataset", name))
    assert (found.num_classes, len(found.train)) == (10, train)
    assert found.train.images[0].shape == (1, size, size)
    assert found.train.images.dtype == torch.uint8
    assert found.train.images.max() == 255


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_no_test_or_validation_image_is_a_training_image(name):
    found = load(section("dataset", name))
    train, val, test = pictures(found.train), pictures(found.val), pictures(found.test)
    assert not train & val
    assert not train & test
    assert not val & test


def test_the_test_split_does_not_depend_on_the_blueprint():
    one = load(section("dataset", "digits"))
    other = load(section("dataset", {"name": "digits", "split_seed": 9, "val_fraction": 0.3}))
    assert torch.equal(one.test.images, other.test.images)
    assert not torch.equal(one.val.images[:100], other.val.images[:100])


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
@pytest.mark.parametrize("settings", [{}, {"val_fraction": 0.37}, {"train_limit": 100}])
def test_planning_knows_the_number_of_training_images(name, settings):
    chosen = section("dataset", {"name": name, **settings})
    planned = train_size(expected(chosen), chosen.config)
    assert planned == len(load(chosen).train)


@given(
    labels=st.lists(st.integers(0, 4), min_size=20, max_size=200),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_a_validation_split_parts_the_training_images_in_proportion(labels, fraction, seed):
    classes = torch.tensor(labels)
    images = torch.arange(len(labels)).view(-1, 1, 1, 1)
    config = DataConfig(val_fraction=fraction, split_seed=seed)
    whole = Split(images, classes)
    found = with_splits("x", "01234", config, train=whole, test=whole, mean=(0.0,), std=(1.0,))
    numbers = torch.cat([found.train.images, found.val.images]).flatten().sort().values
    assert torch.equal(numbers, torch.arange(len(labels)))
    for label in range(5):
        share = len(found.val) * (classes == label).sum() / len(labels)
        assert abs((found.val.labels == label).sum() - share) <= 1


def test_every_class_is_in_the_test_split_in_proportion():
    labels = torch.arange(100) % 10
    train, test = with_test_split(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), labels)
    assert torch.equal(test.labels.bincount(), torch.full((10,), 2))
    assert torch.equal(train.labels.bincount(), torch.full((10,), 8))


def test_fashion_mnist_is_found_in_debians_package(tmp_path):
    needs.fashion_mnist()
    found = load(section("dataset", {"name": "fashion_mnist", "train_limit": 500}), tmp_path)
    assert (len(found.train), len(found.val), len(found.test)) == (500, 6000, 10000)
    assert found.classes[0] == "T-shirt/top"
    assert found.test.labels.bincount().tolist() == [1000] * 10


def test_downloads_go_to_the_first_folder_that_can_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITARIUM_DATA", str(tmp_path / "new" / "data"))
    assert DataFolders(tmp_path).writable == tmp_path
    assert DataFolders(tmp_path / "file").writable == tmp_path / "new" / "data"


def test_a_folder_that_is_marked_read_only_is_left_alone_even_by_root(tmp_path, monkeypatch):
    (tmp_path / "given").mkdir(mode=0o555)
    monkeypatch.setenv("VITARIUM_DATA", str(tmp_path / "named"))
    assert DataFolders(tmp_path / "given").writable == tmp_path / "named"


@pytest.fixture
def without_network(monkeypatch):
    import torchvision.datasets.utils as downloads

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    return downloads


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_a_missing_data_set_says_where_it_was_looked_for(
    name, tmp_path, monkeypatch, without_network
):
    monkeypatch.setenv("VITARIUM_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataNotFound) as caught:
        load(section("dataset", name), tmp_path / "given")
    for part in (f"'{name}'", "given", "named", "cache/data", "data_dir=DIR"):
        assert part in str(caught.value)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, 10 + 4 JPEG and PNG images of different sizes, some gray."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 4)):
        for number in range(count):
            place = tmp_path / "mine" / part / ("cat" if number % 2 else "dog")
            place.mkdir(parents=True, exist_ok=True)
            shape = (12 + number, 16) if number == 3 else (12 + number, 16, 3)
            pixels = generator.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.{'png' if number % 3 else 'jpg'}")
    return tmp_path


def test_an_image_folder_is_decoded_when_it_is_needed(folder):
    found = load(section("dataset", {"name": "image_folder", "folder": "mine"}), folder)
    assert found.classes == ("cat", "dog")
    assert (len(found.train), len(found.val), len(found.test)) == (9, 1, 4)
    assert {found.train.images[i].shape[0] for i in range(9)} == {3}


def test_a_class_whose_folder_is_called_in_no_utf_8_has_a_name_that_can_be_written(folder):
    name, expected = os.fsdecode(b"caf\xe9"), r"caf\xe9"
    if sys.platform == "darwin":  # it takes UTF-8 alone
        name = expected = "café"
    for part in ("train", "val"):
        cat = folder / "mine" / part / "cat"
        cat.rename(cat.with_name(name))
    found = load(section("dataset", {"name": "image_folder", "folder": "mine"}), folder)
    assert found.classes == (expected, "dog")
    assert found.train.images.fingerprint


def test_an_image_folder_with_a_test_folder_validates_on_val(folder):
    (folder / "mine" / "val").rename(folder / "mine" / "test")
    (folder / "mine" / "train" / "cat").rename(folder / "cat")
    (folder / "mine" / "val").symlink_to(folder / "mine" / "test")
    (folder / "cat").rename(folder / "mine" / "train" / "cat")
    found = load(section("dataset", {"name": "image_folder", "folder": "mine"}), folder)
    assert (len(found.train), len(found.val), len(found.test)) == (10, 4, 4)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"num_classes": 3}, "has 2 classes, but num_classes says 3"),
        ({"num_train": 11}, "has 10 training images, but num_train says 11"),
    ],
)
def test_what_a_blueprint_declares_is_checked(folder, declared, message):
    with pytest.raises(InvalidData, match=message):
        load(section("dataset", {"name": "image_folder", "folder": "mine", **declared}), folder)


def test_a_link_to_a_folder_that_it_lies_in_is_named(folder):
    (folder / "mine" / "train" / "cat" / "again").symlink_to("..")
    with pytest.raises(InvalidData, match="cat/again is a link to a folder that it lies in"):
        load(section("dataset", {"name": "image_folder", "folder": "mine"}), folder)


def test_a_missing_image_folder_says_what_is_expected_where(folder):
    with pytest.raises(DataNotFound, match="train/CLASS"):
        load(section("dataset", {"name": "image_folder", "folder": "yours"}), folder)


def test_folders_that_differ_in_classes_are_refused(folder):
    (folder / "mine" / "val" / "cat").rename(folder / "mine" / "val" / "bird")
    with pytest.raises(InvalidData, match=r"val has no folder of cat; .*train has"):
        load(section("dataset", {"name": "image_folder", "folder": "mine"}), folder)


@pytest.fixture
def parquet(tmp_path, monkeypatch) -> Path:
    """Local parquet files of the hub's form: encoded images and labels."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        images = [
            Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            for _ in range(count)
        ]
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        )
        rows = datasets.Dataset.from_dict(
            {"image": images, "label": [i % 2 for i in range(count)]}, features=features
        )
        (tmp_path / "tiny").mkdir(exist_ok=True)
        rows.to_parquet(str(tmp_path / "tiny" / f"{part}.parquet"))
    return tmp_path


def test_parquet_that_datasets_writes_is_read(parquet):
    found = load(
        section("dataset", {"name": "hf", "folder": "tiny", "val_fraction": 0.25}), parquet
    )
    assert found.classes == ("a", "b")
    assert (len(found.train), len(found.val), len(found.test)) == (9, 3, 4)
    assert found.train.images[0].shape == (3, 6, 6)


@pytest.mark.parametrize("missing", [False, True])
def test_images_of_parquet_are_read_as_files_are(parquet, missing):
    import datasets

    deep = Image.fromarray(np.full((4, 4), 600, np.uint16))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [deep, None if missing else deep], "label": [0, 1]}
    odd = datasets.Dataset.from_dict(rows, features=features)
    odd.to_parquet(str(parquet / "tiny" / "test.parquet"))
    chosen = section("dataset", {"name": "hf", "folder": "tiny"})
    if missing:
        with pytest.raises(InvalidData, match="row 1 of column 'image' is empty"):
            load(chosen, parquet)
    else:
        assert load(chosen, parquet).test.images[0].unique().tolist() == [2]


def test_a_row_without_a_label_is_named(parquet):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    rows = {"image": [image, image], "label": [0, None]}
    odd = datasets.Dataset.from_dict(rows, features=features)
    odd.to_parquet(str(parquet / "tiny" / "test.parquet"))
    with pytest.raises(InvalidData, match="row 1 of column 'label' is empty"):
        load(section("dataset", {"name": "hf", "folder": "tiny"}), parquet)


def test_a_wrong_column_is_named(parquet):
    for setting in ("label_column", "image_column"):
        chosen = section("dataset", {"name": "hf", "folder": "tiny", setting: "coarse"})
        message = rf"no column 'coarse' in .*\.parquet; there are image, label; .* {setting}"
        with pytest.raises(InvalidData, match=message):
            load(chosen, parquet)


@pytest.mark.parametrize("damage", ["no parquet", "cut"])
def test_a_broken_parquet_file_is_named(parquet, damage):
    file = parquet / "tiny" / "train.parquet"
    content = file.read_bytes()
    file.write_bytes({"no parquet": b"not parquet", "cut": content[:-9]}[damage])
    chosen = section("dataset", {"name": "hf", "folder": "tiny"})
    with pytest.raises(InvalidData, match="parquet") as error:
        load(chosen, parquet)
    assert "\n" not in str(error.value)
    assert str(parquet / "tiny") in str(error.value)


def test_hf_needs_one_source():
    with pytest.raises(InvalidConfig, match="give either dataset"):
        section("dataset", {"name": "hf"})


def test_an_image_folder_keeps_to_the_contract(folder):
    check_dataset("image_folder", folder, folder="mine", val_fraction=0.2)


def test_local_parquet_keeps_to_the_contract(parquet):
    check_dataset("hf", parquet, folder="tiny")


@pytest.mark.parametrize(
    "name", sorted(n for n, p in plugins("dataset").items() if p.facts["fixed"])
)
def test_every_fixed_data_set_that_is_here_keeps_to_the_contract(name, without_network):
    try:
        check_dataset(name)
    except DataNotFound as error:
        pytest.skip(str(error))


def test_every_data_set_is_in_one_of_the_contract_tests():
    assert {n for n, p in plugins("dataset").items() if not p.facts["fixed"]} == {
        "image_folder",
        "mosaics",
        "hf",
        "class_folders",
        "torchvision",
        "webdataset",
    }


def test_splits_that_share_images_are_named(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})

    @dataset("leaky")
    def leaky(config: DataConfig, folders):
        images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
        split = Split(images, torch.arange(40) % 2)
        return with_splits("leaky", "ab", config, train=split, test=split, mean=(0.5,), std=(0.5,))

    with pytest.raises(
        AssertionError, match=r"dataset 'leaky': .* of the test images are training"
    ):
        check_dataset("leaky")
