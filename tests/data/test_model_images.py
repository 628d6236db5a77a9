"""A model's images as a torch data set."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from vitarium import compare
from vitarium.core.errors import NotApplicable, UnknownName
from vitarium.data.class_outputs import ClassOutputs
from vitarium.data.load import load
from vitarium.evaluation.loader import ModelLoader


@pytest.fixture
def zoo(grown_zoo):
    return grown_zoo


def test_images_are_those_that_it_is_scored_on(zoo):
    id = zoo.ids()[0]
    for split in ("train", "val", "test"):
        images = zoo.data(id, split)
        (batch,) = ModelLoader(zoo).examples(id, split).batches(10_000)
        assert torch.equal(torch.stack([image for image, _ in images]), batch.images)
        assert [label for _, label in images] == images.targets == batch.labels.tolist()
        assert len(images) == len(batch.labels) == len(images.labels)


def test_by_hand_the_accuracy_is_that_of_the_table(zoo):
    row = zoo.models().iloc[0]
    model, right = zoo.load(row["id"]), 0
    with torch.no_grad():
        for images, labels in DataLoader(zoo[row["id"]].data(), batch_size=100):
            right += (model(images).argmax(1) == labels).sum().item()
    assert right / len(zoo.data(row["id"])) == pytest.approx(row["test_accuracy"])


def test_workers_are_sent_no_images(zoo):
    images = zoo.data(zoo.ids()[0])
    text = pickle.dumps(images)
    assert len(text) < len(images) * 64
    copy = pickle.loads(text)
    assert torch.equal(copy[3][0], images[3][0])
    assert (copy.classes, copy.targets) == (images.classes, images.targets)
    loader = DataLoader(images, batch_size=50, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))[1], images.labels[:50])


def test_items_are_named_by_their_numbers(zoo):
    images = zoo.data(zoo.ids()[0])
    assert torch.equal(images[-1][0], images[len(images) - 1][0])
    with pytest.raises(IndexError):
        images[len(images)]
    assert images.classes == tuple("0123456789")
    assert "digits/test" in repr(images)


def test_other_data_are_prepared_as_the_model_takes_them(zoo):
    """MNIST is of 28 by 28 pixels; the normalization stays that of the model's own data."""
    images = zoo.data(zoo.ids()[0], data="mnist5k")
    own = zoo.data(zoo.ids()[0])
    assert images[0][0].shape == own[0][0].shape
    assert images.preprocessing == own.preprocessing


def test_a_loader_is_what_compare_takes(zoo):
    first, second = zoo.ids()[:2]
    loader = DataLoader(zoo.data(first), batch_size=64)
    table = compare(zoo.load(first), zoo.load(second), loader)
    assert table.notna().all().all()


def test_labels_are_numbers_of_the_models_outputs():
    from vitarium.core.registry import section
    from vitarium.data.model_images import ModelImages
    from vitarium.data.preprocessing import Preprocessing

    names = tuple(f"digit {n}" for n in range(10))[::-1]
    outputs = ClassOutputs(tuple(range(10))[::-1])
    how = Preprocessing((1, 8, 8), 8, "bilinear", (0.0,), (1.0,))
    images = ModelImages(section("dataset", "digits"), how, "test", outputs, names)
    own = load(section("dataset", "digits")).test.labels
    assert torch.equal(images.labels, 9 - own)
    assert images.classes == names
    assert [images.classes[label] for _, label in images] == [f"digit {n}" for n in own]
    mismatched = outputs._replace(mismatch="its outputs are called otherwise")
    images = ModelImages(section("dataset", "digits"), how, "test", mismatched, names)
    assert torch.equal(images.labels, own)
    assert images.classes == tuple("0123456789")


def test_a_split_that_there_is_not_is_named(zoo):
    with pytest.raises(UnknownName, match=r"validation.*val"):
        zoo.data(zoo.ids()[0], "validation")


def test_without_known_data_one_is_asked_for(zoo, imported_digits):
    ids = imported_digits(zoo, {})
    with pytest.raises(NotApplicable, match="name one: data=NAME"):
        zoo.data(ids[0])
    with pytest.raises(NotApplicable, match="how its images were normalized"):
        zoo.data(ids[0], data="digits")
    assert zoo.data(ids[0], data="digits", normalization=(0.0, 1.0))[0][0].min() == 0
