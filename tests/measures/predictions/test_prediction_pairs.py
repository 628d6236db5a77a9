"""What the predictions of two classifiers say of the pair, against scipy and scikit-learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Predictions

PAIRS = ("agreement", "error_consistency", "js_divergence", "oracle_accuracy", "ensemble_gain")


def pair(seed, scale=3.0, images=40, classes=5):
    """Two unrelated classifiers of the same images."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=source)
    logits = scale * torch.randn(2, images, classes, generator=source)
    return Predictions(logits[0], labels), Predictions(logits[1], labels)


def answers(classes, labels):
    return Predictions(torch.eye(4)[list(classes)], torch.tensor(labels))


def test_a_model_agrees_with_itself(predictions):
    expected = {
        "agreement": {"": 1, "errors": 1},
        "js_divergence": 0,
        "oracle_accuracy": choose("measure", "accuracy")(predictions)[""],
        "ensemble_gain": {"": 0, "best": 0},
    }
    for name, value in expected.items():
        assert choose("measure", name)(predictions, predictions) == pytest.approx(value, abs=1e-12)
    assert choose("measure", "error_consistency")(predictions, predictions)[""] == 1


def test_agreement_on_errors_is_of_images_that_both_get_wrong():
    one = answers([0, 1, 2, 3], [0, 0, 0, 0])
    other = answers([0, 1, 3, 0], [0, 0, 0, 0])
    assert choose("measure", "agreement")(one, other) == {"": 0.5, "errors": 0.5}
    right = answers([0, 0, 0, 0], [0, 0, 0, 0])
    assert choose("measure", "agreement")(one, right) == {"": 0.25}


def test_error_consistency_is_cohens_kappa_of_being_right(predictions, other_predictions):
    for one, other in (pair(0), pair(1), (predictions, other_predictions)):
        values = choose("measure", "error_consistency")(one, other)
        assert values[""] == pytest.approx(cohen_kappa_score(one.correct, other.correct))
        observed = (one.correct == other.correct).double().mean()
        assert values["observed"] == pytest.approx(float(observed))


def test_opposite_errors_are_consistently_inconsistent():
    one, other = answers([0, 0, 1, 1], [0, 0, 0, 0]), answers([1, 1, 0, 0], [0, 0, 0, 0])
    values = choose("measure", "error_consistency")(one, other)
    assert values == {"": -1, "observed": 0, "expected": 0.5}


@pytest.mark.parametrize(("label", "message"), [(0, "right on all 2"), (1, "wrong on all 2")])
def test_without_any_errors_or_successes_there_is_no_kappa(label, message):
    some = answers([0, 0], [label, label])
    with pytest.raises(NotApplicable, match=message):
        choose("measure", "error_consistency")(some, some)


def test_divergence_is_the_square_of_scipys_distance(predictions, other_predictions):
    p, q = (each.logits.double().softmax(1) for each in (predictions, other_predictions))
    expected = (jensenshannon(p, q, base=2, axis=1) ** 2).mean()
    found = choose("measure", "js_divergence")(predictions, other_predictions)
    assert found == pytest.approx(expected, rel=1e-6)


def test_certain_models_of_other_opinions_are_a_bit_apart():
    one, other = (
        Predictions(1e4 * torch.eye(4)[k], torch.zeros(4).long()) for k in (range(4), [1, 2, 3, 0])
    )
    assert choose("measure", "js_divergence")(one, other) == 1


def test_together_models_know_what_either_does():
    one, other = answers([0, 1, 2, 3], [0, 1, 0, 0]), answers([1, 1, 0, 3], [0, 1, 0, 0])
    assert choose("measure", "oracle_accuracy")(one, other) == 0.75


def test_an_ensemble_gains_where_the_right_one_is_surer():
    labels = torch.tensor([0, 1])
    one = Predictions(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), labels)
    other = Predictions(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), labels)
    assert choose("measure", "ensemble_gain")(one, other) == {"": 0.25, "best": 0}
    other = Predictions(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), labels)
    assert choose("measure", "ensemble_gain")(one, other) == {"": 0.5, "best": 0.5}


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), scale=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e4]))
def test_pairs_have_no_order_and_values_have_bounds(seed, scale):
    one, other = pair(seed, scale)
    for name in PAIRS:
        measure = choose("measure", name)
        assert measure(one, other) == pytest.approx(measure(other, one), abs=1e-12)
    assert 0 <= choose("measure", "js_divergence")(one, other) <= 1
    either = choose("measure", "oracle_accuracy")(one, other)
    assert max(float(each.correct.double().mean()) for each in (one, other)) <= either <= 1


@pytest.mark.parametrize("name", PAIRS)
def test_predictions_of_other_things_are_not_compared(name):
    measure, (one, other) = choose("measure", name), pair(0)
    fewer = Predictions(other.logits[:30], other.labels[:30])
    with pytest.raises(NotApplicable, match="one predicts 40 images, the other 30"):
        measure(one, fewer)
    with pytest.raises(NotApplicable, match="one knows 5 classes, the other 4"):
        measure(one, Predictions(other.logits[:, :4], other.labels.clamp(max=3)))
    with pytest.raises(NotApplicable, match="40 of 40 images have another label"):
        measure(one, Predictions(other.logits, (other.labels + 1) % 5))
    named = [
        Predictions(each.logits, each.labels, tuple(names))
        for each, names in ((one, "abcde"), (other, "vwxyz"))
    ]
    with pytest.raises(NotApplicable, match="called otherwise"):
        measure(*named)
    with pytest.raises(NotApplicable, match="not finite"):
        measure(one, Predictions(other.logits / 0, other.labels))
