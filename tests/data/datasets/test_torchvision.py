"""torchvision's data sets by name: the table agrees with torchvision, and images and labels are its."""

import inspect
import sys
from types import SimpleNamespace

import pytest
import torch
import torchvision.datasets
from torchvision.transforms.v2.functional import pil_to_tensor

from data.datasets.torchvision_files import CHECKED_BY_MD5, WRITERS, FakeH5
from vitarium import Blueprint, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.core.registry import section
from vitarium.data._torchvision_sets import REFUSED, SETS
from vitarium.data.expected import expected, train_size
from vitarium.data.load import load
from vitarium.testing import check_dataset


def chosen(name, **settings):
    return section("dataset", {"name": "torchvision", "dataset": name, **settings})


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setenv("VITARIUM_DATA", str(tmp_path))


def argument_names(name):
    signatures = [
        inspect.signature(kind.__init__) for kind in getattr(torchvision.datasets, name).mro()
    ]
    return {argument for signature in signatures[:3] for argument in signature.parameters}


@pytest.mark.parametrize("name", SETS)
def test_torchvision_takes_the_arguments_of_the_table(name):
    source, names = SETS[name], argument_names(name)
    needed = {source.argument, *source.options, "root", *(["download"] if source.downloads else [])}
    assert needed - {""} - (names if name != "FakeData" else names | {"root", "download"}) == set()
    assert {part for part in source.splits if part} <= source.images.keys() or not source.argument
    for key, allowed in source.options.items():
        default = inspect.signature(getattr(torchvision.datasets, name)).parameters[key].default
        assert not allowed or default in (allowed[0], inspect.Parameter.empty)


def test_every_data_set_of_torchvision_is_listed_or_refused_with_a_reason():
    assert {*SETS, *REFUSED} == {
        name
        for name in torchvision.datasets.__all__
        if inspect.isclass(getattr(torchvision.datasets, name))
    }
    assert not SETS.keys() & REFUSED.keys()
    assert {*SETS} - {*WRITERS} == {"FakeData", "CIFAR100"}


def published(name, part):
    """torchvision's own object of a split."""
    source, make = SETS[name], getattr(torchvision.datasets, name)
    values = {source.argument: source.value(part)} if source.argument else {}
    required = {"split": "balanced"} if name == "EMNIST" else {}
    return lambda root: make(root=root, **values, **required)


def pictures(pairs):
    return sorted((label, image.numpy().tobytes()) for image, label in pairs)


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_those_of_torchvision(name, tmp_path, monkeypatch):
    for module in CHECKED_BY_MD5:
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_, **__: True)
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=FakeH5))
    WRITERS[name](tmp_path)
    source = SETS[name]
    parts = [part for part in source.splits if part] if source.argument else [""]
    objects = {part: published(name, part)(tmp_path) for part in parts}
    train = len(objects[parts[0]])
    classes = (
        102 if name == "Flowers102" else len(getattr(objects[parts[0]], "classes", ())) or None
    )
    counted = {"num_train": train if source.argument else train - train // 5}
    if classes is None:
        labels = {int(objects[parts[0]][n][1]) for n in range(train)}
        classes = len(labels)
    data = load(chosen(name, num_classes=classes, val_fraction=0.2, **counted), tmp_path)
    assert data.num_classes == classes
    splits = [data.train, data.val, data.test]
    read = [(s.images[n], int(s.labels[n])) for s in splits for n in range(len(s))]
    reference = [
        (pil_to_tensor(image.convert("RGB")), int(label) - source.first_label)
        for each in objects.values()
        for image, label in (each[n] for n in range(len(each)))
    ]
    assert pictures(read) == pictures(reference)
    if len(parts) > 1:
        count = len(objects[parts[-1]])
        assert pictures(read[-count:]) == pictures(reference[-count:])
    assert len({*data.classes}) == classes


@pytest.mark.parametrize("name", ["SUN397", "INaturalist"])
def test_splits_do_not_depend_on_the_order_in_which_a_folder_lists_its_files(
    name, tmp_path, monkeypatch
):
    WRITERS[name](tmp_path)
    train = 16 if name == "SUN397" else 8
    first = chosen(name, num_classes=2, num_train=train)(folders(tmp_path))
    listed = sorted
    attribute = {"SUN397": "_image_files", "INaturalist": "index"}[name]
    make = getattr(torchvision.datasets, name)
    build = make.__init__

    def reversed_lists(self, *args, **kwargs):
        build(self, *args, **kwargs)
        setattr(self, attribute, listed(getattr(self, attribute), reverse=True))
        if name == "SUN397":
            self._labels = [int("indoor" in str(path)) for path in self._image_files]

    monkeypatch.setattr(make, "__init__", reversed_lists)
    second = chosen(name, num_classes=2, num_train=train)(folders(tmp_path))
    for part in ("train", "val", "test"):
        a, b = getattr(first, part), getattr(second, part)
        assert [image.tolist() for image in a.images] == [image.tolist() for image in b.images]
        assert torch.equal(a.labels, b.labels)


def folders(path):
    from vitarium.data.base import DataFolders

    return DataFolders(path)


def test_the_data_set_keeps_to_the_contract():
    check_dataset("torchvision")


def test_splits_are_chosen_and_joined(tmp_path):
    WRITERS["DTD"](tmp_path)
    both = load(chosen("DTD", train_split="train+val", num_train=8, num_classes=2), tmp_path)
    assert (len(both.train), len(both.val), len(both.test)) == (7, 1, 4)
    assert both.classes == ("banded", "woven")


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"dataset": "Flowers102"}, (102, 1020)),
        ({"dataset": "Flowers102", "train_split": "train+val"}, (102, 1836)),
        ({"dataset": "OxfordIIITPet"}, (37, 3312)),
        ({"dataset": "EuroSAT", "val_fraction": 0.25}, (10, 16200)),
        ({"dataset": "EMNIST", "split": "letters", "train_limit": 500}, (27, 500)),
        ({"dataset": "fgvc_aircraft", "annotation-level": "family"}, (70, 3334)),
        ({"dataset": "GTSRB", "num_train": 100, "num_val": 10}, (43, 100)),
    ],
)
def test_plans_are_made_without_files(settings, counts, no_network):
    data = section("dataset", {"name": "torchvision", **settings})
    assert (expected(data).num_classes, train_size(expected(data), data.config)) == counts
    stage = {"architecture": "vit", "data": {"name": "torchvision", **settings}}
    blueprint = {"name": "x", "stages": {"a": {**stage, "epochs": 1, "batch_size": 2}}}
    assert len(plan(Blueprint.read(blueprint))) == 1


def test_an_argument_at_its_default_is_left_out_of_the_factors():
    assert chosen("EMNIST", split="balanced") == chosen("EMNIST")
    assert chosen("EMNIST", split="letters") != chosen("EMNIST")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "Flowers"}, "dataset: .*did you mean 'Flowers102'"),
        (
            {"dataset": "CocoDetection"},
            "dataset: CocoDetection cannot be used: its labels are boxes",
        ),
        ({"dataset": "ImageFolder"}, "'image_folder'"),
        ({"dataset": "EMNIST", "split": "leters"}, "split: 'leters' is none of balanced, byclass"),
        ({"dataset": "DTD", "partitoin": 1}, "DTD has no argument 'partitoin'; .*'partition'"),
        ({"dataset": "EuroSAT", "test_split": "test"}, "test_split: EuroSAT has no splits"),
        ({"dataset": "DTD", "train_split": "trian"}, "'trian' is no split of DTD; .*'train'"),
        (
            {"dataset": "FGVCAircraft", "train_split": "trainval", "val_split": "val"},
            "val_split: val shares images with train_split",
        ),
        ({"dataset": "FakeData", "size": 0}, "size: 0 is no number from 5"),
        ({"dataset": "FakeData", "image_size": [32, 32]}, "image_size: .* is no size of images"),
        ({}, "dataset: missing"),
    ],
)
def test_wrong_settings_are_named_when_the_blueprint_is_read(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        section("dataset", {"name": "torchvision", **settings})


@pytest.mark.parametrize("name", ["Flowers102", "ImageNet", "USPS"])
def test_files_that_are_nowhere_are_named_with_their_reader(name, no_network, tmp_path):
    with pytest.raises(DataNotFound, match=rf"'{name}' is not in .*torchvision\.datasets\.{name}"):
        load(chosen(name), tmp_path)


def test_an_incomplete_copy_is_refused_unless_it_is_declared(tmp_path):
    WRITERS["EuroSAT"](tmp_path)
    with pytest.raises(InvalidData, match=r"num_classes is 2, .* have 10; .* num_classes: 2"):
        load(chosen("EuroSAT"), tmp_path)
    with pytest.raises(InvalidData, match=r"num_train is 16, .* have 21,600"):
        load(chosen("EuroSAT", num_classes=2), tmp_path)
    assert load(chosen("EuroSAT", num_classes=2, num_train=16), tmp_path).num_classes == 2
