"""What a classifier's predictions say of it alone, against torchmetrics and closed forms."""

import math
import statistics

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Predictions

OF_ONE = (
    "accuracy",
    "loss",
    "calibration_error",
    "confidence",
    "entropy",
    "class_accuracy",
    "class_accuracy_spread",
    "class_group_accuracy",
)


def certain(classes, labels, num_classes=3, names=()):
    """Predictions that leave no doubt."""
    logits = 1e3 * F.one_hot(torch.tensor(classes), num_classes).float()
    return Predictions(logits, torch.tensor(labels), names)


def uniform(labels, num_classes):
    return Predictions(torch.zeros(len(labels), num_classes), torch.tensor(labels))


@pytest.fixture
def drawn():
    """Logits of 300 images in eight classes, right more often than not."""
    source = torch.Generator().manual_seed(0)
    labels = torch.randint(8, (300,), generator=source)
    logits = torch.randn(300, 8, generator=source) + 2 * F.one_hot(labels, 8)
    return Predictions(logits, labels)


def test_accuracy_is_scikit_learns(predictions, drawn):
    for some in (predictions, drawn):
        values = choose("measure", "accuracy")(some)
        classes = list(range(some.logits.shape[1]))
        for part, k in (("", 1), ("top5", 5)):
            expected = top_k_accuracy_score(some.labels, some.logits, k=k, labels=classes)
            assert values[part] == pytest.approx(expected)


@pytest.mark.parametrize(("num_classes", "parts"), [(5, {""}), (6, {"", "top5"})])
def test_five_of_five_classes_say_nothing(num_classes, parts):
    assert choose("measure", "accuracy")(uniform([0], num_classes)).keys() == parts


def test_a_model_without_an_opinion_is_right_by_chance():
    """All logits are equal: the first class is the answer, and the first five the top five."""
    values = choose("measure", "accuracy")(uniform(list(range(10)), 10))
    assert values == {"": 0.1, "top5": 0.5}


def test_loss_is_the_cross_entropy(predictions):
    expected = F.cross_entropy(predictions.logits.double(), predictions.labels)
    assert choose("measure", "loss")(predictions) == pytest.approx(float(expected))


@pytest.mark.parametrize("norm", ["l1", "max"])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_torchmetrics(drawn, bins, norm):
    found = choose("measure", "calibration_error", bins=bins, norm=norm)(drawn)
    p = drawn.logits.softmax(1)
    expected = multiclass_calibration_error(p, drawn.labels, num_classes=8, n_bins=bins, norm=norm)
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_certainty_falls_into_the_last_bin():
    """Of four certain answers three are right, so confidence is a quarter too high."""
    some = certain([0, 1, 2, 0], [0, 1, 2, 1])
    for norm in ("l1", "max"):
        assert choose("measure", "calibration_error", norm=norm)(some) == pytest.approx(0.25)


def test_confidence_is_split_by_being_right(drawn):
    values = choose("measure", "confidence")(drawn)
    largest = drawn.logits.double().softmax(1).max(1).values
    right = drawn.logits.argmax(1) == drawn.labels
    expected = {
        "": largest.mean(),
        "correct": largest[right].mean(),
        "wrong": largest[~right].mean(),
    }
    assert values == pytest.approx({part: float(value) for part, value in expected.items()})
    assert values["correct"] > values["wrong"]
    assert choose("measure", "confidence")(certain([0], [0])).keys() == {"", "correct"}
    assert choose("measure", "confidence")(certain([0], [1])).keys() == {"", "wrong"}


def test_entropy_is_from_zero_to_the_logarithm_of_the_classes(drawn):
    entropy = choose("measure", "entropy")
    assert entropy(certain([0, 1], [0, 0])) == 0
    assert entropy(uniform([0, 1], 10)) == pytest.approx(math.log(10))
    expected = torch.distributions.Categorical(logits=drawn.logits.double()).entropy().mean()
    assert entropy(drawn) == pytest.approx(float(expected))


def test_class_accuracy_is_by_name_and_its_mean_is_balanced(predictions):
    values = choose("measure", "class_accuracy")(predictions)
    assert set(values) == {"", *predictions.class_names}
    expected = balanced_accuracy_score(predictions.labels, predictions.classes)
    assert values[""] == pytest.approx(expected)
    threes = predictions.labels == 3
    share = (predictions.classes[threes] == 3).double().mean()
    assert values[predictions.class_names[3]] == pytest.approx(float(share))


def test_classes_without_images_have_no_accuracy_and_equal_names_a_number():
    some = certain([0, 0, 2], [0, 1, 1], 4, ("cat", "crane", "dog", "crane"))
    assert choose("measure", "class_accuracy")(some) == {"": 0.5, "cat": 1, "crane (1)": 0}
    assert choose("measure", "class_accuracy")(certain([1], [1])) == {"": 1, "1": 1}


def test_the_spread_of_class_accuracies_is_their_standard_deviation(predictions, drawn):
    for some in (predictions, drawn):
        values = choose("measure", "class_accuracy_spread")(some)
        accuracies = choose("measure", "class_accuracy")(some)
        del accuracies[""]
        assert values[""] == pytest.approx(statistics.pstdev(accuracies.values()))
        assert values["lowest"] == min(accuracies.values())
        assert values["highest"] == max(accuracies.values())


@pytest.mark.parametrize("share", [0, 1, 2, 4])
def test_the_spread_of_two_classes_is_half_their_difference(share):
    """Class 0 is always right, class 1 for `share` of 4 images; class 2 has no images."""
    labels = [0, 0, 1, 1, 1, 1]
    classes = [0, 0, *[1] * share, *[0] * (4 - share)]
    values = choose("measure", "class_accuracy_spread")(certain(classes, labels))
    assert values == {"": (1 - share / 4) / 2, "lowest": share / 4, "highest": 1}


def test_a_single_class_has_no_spread():
    assert choose("measure", "class_accuracy_spread")(certain([1], [1]))[""] == 0


def test_groups_of_classes_are_scored_by_their_own_images(drawn):
    values = choose("measure", "class_group_accuracy", edges=(2, 5))(drawn)
    groups = {"many": [0, 1], "medium": [2, 3, 4], "few": [5, 6, 7]}
    for name, classes in groups.items():
        inside = torch.isin(drawn.labels, torch.tensor(classes))
        expected = accuracy_score(drawn.labels[inside], drawn.classes[inside])
        assert values[name] == pytest.approx(expected)
    assert values[""] == pytest.approx(accuracy_score(drawn.labels, drawn.classes))
    thirds = choose("measure", "class_group_accuracy")(uniform([0, 3, 7], 10))
    assert thirds == {"": pytest.approx(1 / 3), "many": 1, "medium": 0, "few": 0}


def test_groups_that_are_none_are_refused(drawn):
    with pytest.raises(NotApplicable, match="edges 3 and 8 make no three groups of 8 classes"):
        choose("measure", "class_group_accuracy", edges=(3, 8))(drawn)
    with pytest.raises(NotApplicable, match="no image is of the classes with few"):
        choose("measure", "class_group_accuracy")(uniform([0, 3], 10))


def test_the_gap_is_positive_where_training_images_are_known_better(subject):
    splits = {}
    for split in ("train", "test"):
        examples = subject.examples.of(split)
        logits = torch.cat([subject.model(batch.images) for batch in examples.batches()])
        splits[split] = Predictions(logits, examples.labels)
    gap = choose("measure", "generalization_gap")
    values = gap(splits)
    right = {name: float(some.correct.double().mean()) for name, some in splits.items()}
    assert values[""] == pytest.approx(right["train"] - right["test"])
    assert values[""] > 0
    assert values["loss"] > 0
    assert gap({"train": splits["test"], "test": splits["test"]}) == {"": 0, "loss": 0}


@pytest.mark.parametrize("name", OF_ONE)
def test_predictions_that_are_no_numbers_have_no_value(name):
    broken = uniform([0, 1], 3)
    broken.logits[1, 2] = torch.nan
    with pytest.raises(NotApplicable, match="not finite"):
        choose("measure", name)(broken)
    with pytest.raises(NotApplicable, match="no images"):
        choose("measure", name)(Predictions(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))
