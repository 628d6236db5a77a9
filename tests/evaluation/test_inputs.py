"""Weights: read when they are asked for, checked, and what is computed of them kept."""

import pytest
import torch

from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.inputs import Weights
from vitarium.zoo.checkpoint import Checkpoint

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(4, 3),
    "a.bias": torch.zeros(4),
    "scale": torch.tensor(2.0),
    "index": torch.arange(5),
}


@pytest.fixture(params=["tensors", "checkpoint"])
def weights(request, kept_zoo) -> Weights:
    if request.param == "tensors":
        return Weights("a@1", TENSORS)
    folder = kept_zoo.folder(kept_zoo.ids()[0])
    folder.commit(9, {}, TENSORS, None)
    return Weights("a@9", folder.open(9))


def test_shapes_are_those_of_the_real_tensors(weights):
    assert weights.shapes == {"a.weight": (4, 3), "a.bias": (4,), "scale": ()}


def test_rows_are_a_part_of_a_tensor(weights):
    assert weights.rows("a.weight", 1, 3).equal(TENSORS["a.weight"][1:3])


def test_shapes_of_a_checkpoint_are_known_without_reading_it(kept_zoo, monkeypatch):
    weights = Weights("a@0", kept_zoo.checkpoint(kept_zoo.ids()[0]))
    monkeypatch.setattr(Checkpoint, "__getitem__", lambda *args: pytest.fail("read"))
    assert weights.shapes["cls_token"] == (1, 1, 16)


def test_real_tensors_are_given_by_a_part_of_their_names(weights):
    assert [name for name, _ in weights.floats()] == ["a.weight", "a.bias", "scale"]
    assert [name for name, _ in weights.floats("a.")] == ["a.weight", "a.bias"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_tensor_that_is_not_finite_is_named(bad):
    weights = Weights("abc@3", {"good": torch.ones(2), "bad": torch.tensor([1.0, bad])})
    with pytest.raises(NotApplicable, match="abc@3: bad has entries that are not finite"):
        dict(weights.floats())


def test_what_is_remembered_is_computed_once(weights):
    calls = []
    for _ in range(2):
        assert weights.remember("sum", lambda: calls.append(1) or 5) == 5
    assert weights.remember("other", lambda: 6) == 6
    assert len(calls) == 1


def test_rows_beyond_a_checkpoints_tensor_are_refused(kept_zoo):
    weights = Weights("a@0", kept_zoo.checkpoint(kept_zoo.ids()[0]))
    with pytest.raises(InvalidInput, match="has 16 rows"):
        weights.rows("norm.weight", 10, 17)
