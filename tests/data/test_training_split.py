"""Long-tailed and mislabeled training images: exact counts, and nothing else changes."""

import pytest
import torch

import vitarium
from vitarium.core import registry
from vitarium.core.errors import InvalidData
from vitarium.core.registry import section
from vitarium.data._training_split import long_tail_counts, noisy_labels, with_training_split
from vitarium.data.base import DataConfig, Dataset, Split
from vitarium.data.expected import expected, train_size
from vitarium.data.load import load

CIFAR10_LT = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def digits(**settings):
    return load(section("dataset", {"name": "digits", **settings}))


def dataset(labels: torch.Tensor, num_classes: int) -> Dataset:
    """Images that are their own numbers."""
    train = Split(torch.arange(len(labels)).view(-1, 1, 1, 1), labels)
    few = train.select(range(4))
    return Dataset("x", tuple(map(str, range(num_classes))), train, few, few, (0.0,), (1.0,))


def counts(labels: torch.Tensor) -> list[int]:
    return labels.bincount().tolist()


@pytest.mark.parametrize(
    ("largest", "classes", "total"), [(5000, 10, 12_406), (500, 100, 10_847), (6000, 10, 14_886)]
)
def test_classes_have_the_published_sizes(largest, classes, total):
    data = dataset(torch.arange(classes).repeat(largest), classes)
    left = with_training_split(data, DataConfig(imbalance=100)).train.labels
    assert len(left) == total
    assert counts(left) == long_tail_counts(largest, classes, 100)
    if largest == 5000:
        assert counts(left) == CIFAR10_LT


def test_the_last_class_keeps_its_image_though_a_reciprocal_is_rounded():
    assert long_tail_counts(49, 2, 49) == [49, 1]  # 49 * (1 / 49) is less than 1


def test_an_imbalance_is_of_training_images_alone_and_a_stronger_one_leaves_part_of_them():
    plain, weak, strong = digits(), digits(imbalance=5), digits(imbalance=20)
    for part in ("val", "test"):
        assert torch.equal(getattr(strong, part).images, getattr(plain, part).images)
        assert torch.equal(getattr(strong, part).labels, getattr(plain, part).labels)
    images = [{i.numpy().tobytes() for i in d.train.images} for d in (strong, weak, plain)]
    assert images[0] < images[1] < images[2]
    reseeded = digits(imbalance=5, imbalance_seed=1)
    assert counts(reseeded.train.labels) == counts(weak.train.labels)
    assert not torch.equal(reseeded.train.images, weak.train.images)
    with pytest.raises(InvalidData, match="imbalance 500 leaves no training image of class '8'"):
        digits(imbalance=500)


def test_training_images_are_of_the_classes_that_are_named_and_no_other_split_changes():
    plain, some = digits(), digits(train_classes=[7, 2])
    chosen = (plain.train.labels == 2) | (plain.train.labels == 7)
    assert torch.equal(some.train.labels, plain.train.labels[chosen])
    assert torch.equal(some.train.images, plain.train.images[chosen])
    assert some.classes == plain.classes
    assert torch.equal(some.val.labels, plain.val.labels)
    assert torch.equal(some.test.images, plain.test.images)
    chosen_classes = section("dataset", {"name": "digits", "train_classes": [7, 2]})
    assert train_size(expected(chosen_classes), chosen_classes.config) is None
    with pytest.raises(InvalidData, match="class 10, and 'digits' has classes 0 to 9"):
        digits(train_classes=[2, 10])


@pytest.mark.parametrize("kind", ["symmetric", "pairs"])
def test_so_many_labels_are_wrong_and_others_stay(kind):
    plain, noisy = digits(), digits(label_noise=0.3, label_noise_kind=kind)
    before, after = plain.train.labels, noisy.train.labels
    changed = before != after
    assert int(changed.sum()) == round(0.3 * len(before))
    by_class = torch.bincount(before[changed], minlength=10) / before.bincount()
    torch.testing.assert_close(by_class, torch.full((10,), 0.3), atol=0.01, rtol=0)
    steps = (after - before)[changed] % 10
    assert set(steps.tolist()) == ({1} if kind == "pairs" else set(range(1, 10)))
    assert torch.equal(noisy.train.images, plain.train.images)
    assert torch.equal(noisy.val.labels, plain.val.labels)
    assert torch.equal(noisy.test.labels, plain.test.labels)
    reseeded = digits(label_noise=0.3, label_noise_kind=kind, label_noise_seed=1).train.labels
    assert not torch.equal(reseeded != before, changed)


def test_all_labels_are_wrong_with_a_share_of_one():
    labels = torch.arange(4).repeat(10)
    assert (noisy_labels(labels, 4, DataConfig(label_noise=1)) != labels).all()


def test_a_share_is_as_a_limit_of_so_many_images_and_a_plan_knows_it():
    half = section("dataset", {"name": "digits", "train_fraction": 0.5})
    limited = digits(train_limit=647)
    assert torch.equal(load(half).train.images, limited.train.images)
    assert train_size(expected(half), half.config) == 647 == round(0.5 * 1294)
    tailed = section("dataset", {"name": "digits", "imbalance": 10})
    assert train_size(expected(tailed), tailed.config) is None  # it follows from the labels


def test_a_function_of_images_has_the_settings_too():
    @vitarium.dataset
    def flat(split):
        return torch.zeros(200, 4, 4).numpy(), torch.arange(200).numpy() % 2

    try:
        data = load(section("dataset", {"name": "flat", "imbalance": 9, "label_noise": 0.1}))
    finally:
        del registry._plugins["dataset"]["flat"]
    assert len(data.train) == 100 + 11


def test_ids_of_models_on_unchanged_data_stay():
    from vitarium.blueprint import plan

    stage = {"architecture": "vit", "data": "digits", "epochs": 1, "batch_size": 32}
    settings = {"imbalance": 1, "label_noise": 0, "train_fraction": 1, "label_noise_seed": 0}
    changed = [{"name": "digits", **settings}, {"name": "digits", "imbalance": 10}]
    ids = [
        plan({"name": "x", "stages": {"a": stage | {"data": data}}}).models[0].id
        for data in ("digits", *changed)
    ]
    assert ids[0] == ids[1] != ids[2]
