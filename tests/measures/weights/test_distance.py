"""distance_from_start and distance_from_parent: how far training moved the weights."""

import pytest
import torch

from vitarium import create_model
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

PARENT = {
    "a.weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
    "a.bias": torch.zeros(2),
    "head.weight": torch.ones(3, 2),
}
CHILD = {
    "a.weight": torch.tensor([[3.0, 0.0], [2.0, 4.0]]),
    "a.bias": torch.ones(2),
    "head.weight": torch.ones(5, 2),
    "new": torch.ones(2),
}


@pytest.fixture
def child() -> Weights:
    parent = Weights("parent@2", PARENT)
    return Weights("child@1", CHILD, start=lambda: parent, parent=lambda: parent)


@pytest.mark.parametrize("name", ["distance_from_start", "distance_from_parent"])
@pytest.mark.parametrize("scope", ["trunk", "all"])
def test_tensors_that_both_have_in_one_shape_are_compared(child, name, scope):
    values = choose("measure", name, scope=scope)(child)
    assert values == {"": 6**0.5, "a.weight": 2, "a.bias": 2**0.5}


def test_a_relative_distance_is_in_norms_of_the_reference(child):
    values = choose("measure", "distance_from_parent", relative=True)(child)
    assert values == {"": pytest.approx(6**0.5 / 5), "a.weight": 2 / 5}


def test_the_head_counts_on_request():
    start = Weights("a@0", {"w": torch.zeros(2), "head.bias": torch.zeros(1)})
    now = Weights("a@1", {"w": torch.ones(2), "head.bias": torch.ones(1)}, start=lambda: start)
    assert choose("measure", "distance_from_start")(now)[""] == 2**0.5
    assert choose("measure", "distance_from_start", scope="all")(now)[""] == 3**0.5


def test_the_architecture_says_what_is_the_head():
    def model():
        return create_model("vit", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2)

    first, second = model().state_dict(), model().state_dict()
    start = Weights("a@0", first, skeleton=model)
    now = Weights("a@1", second, start=lambda: start, skeleton=model)
    values = choose("measure", "distance_from_start")(now)
    assert values.keys() == {"", *(name for name in first if not name.startswith("head."))}
    squares = [(first[n].double() - second[n]).square().sum() for n in values if n]
    assert values[""] == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-12)


def test_a_model_without_a_reference_has_no_distance():
    alone = Weights("alone@3", CHILD)
    with pytest.raises(NotApplicable, match="alone@3: it has no parent"):
        choose("measure", "distance_from_parent")(alone)
    with pytest.raises(NotApplicable, match="alone@3: its initial weights are not known"):
        choose("measure", "distance_from_start")(alone)


def test_models_without_a_common_tensor_and_bad_weights_are_refused():
    strange = Weights("a@1", {"x": torch.ones(2)}, parent=lambda: Weights("b@0", PARENT))
    with pytest.raises(NotApplicable, match="a@1 has no tensor of b@0's names and shapes"):
        choose("measure", "distance_from_parent")(strange)
    bad = PARENT | {"a.bias": torch.tensor([0.0, torch.nan])}
    child = Weights("a@1", CHILD, parent=lambda: Weights("b@0", bad))
    with pytest.raises(NotApplicable, match=r"b@0: a\.bias has entries that are not finite"):
        choose("measure", "distance_from_parent")(child)
    zero = Weights("a@1", {"x": torch.ones(2)}, parent=lambda: Weights("b", {"x": torch.zeros(2)}))
    with pytest.raises(NotApplicable, match="all weights of b are zero"):
        choose("measure", "distance_from_parent", relative=True)(zero)
