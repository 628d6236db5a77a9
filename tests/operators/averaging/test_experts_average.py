"""What experts become: a plain ViT with the outputs that the model had."""

import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients


@pytest.fixture
def zoo(tiny, tmp_path):
    stage = tiny["stages"]["pretrain"]
    experts = stage["architecture"] | {"name": "ewa_vit", "num_experts": 3, "depth": 2}
    stage |= {"epochs": 1, "grid": {"architecture": [experts, stage["architecture"]]}}
    blueprint = Blueprint.read({"name": "experts", "stages": {"pretrain": stage}})
    return grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo


def with_experts(zoo):
    return next(id for id in zoo.ids() if zoo.spec(id).origin.architecture.name == "ewa_vit")


def averaged(tensors):
    ingredients = Ingredients([Weights("m", tensors)])
    return dict(choose("operator", "experts_average")(ingredients))


def test_a_trained_model_becomes_a_plain_one_with_the_same_outputs(zoo):
    id = with_experts(zoo)
    plain_id = merge(zoo, "experts_average", models=[id]).id
    architecture = zoo.spec(plain_id).origin.architecture
    assert architecture.name == "vit"
    assert architecture.config.depth == 2
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        ours, expected = (zoo.load(one).eval()(images) for one in (plain_id, id))
    assert torch.allclose(ours, expected, atol=1e-6)
    tensors, experts = zoo.state_dict(plain_id), zoo.state_dict(id)
    assert not any("experts" in name for name in tensors)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    name = "blocks.1.mlp.{}fc1.weight"
    own = [experts[name.format(f"experts.{k}.")] for k in range(3)]
    assert not torch.equal(own[0], own[1])
    assert torch.equal(tensors[name.format("")], (sum(t.double() for t in own) / 3).float())


def test_a_model_without_experts_is_refused(zoo):
    (id,) = set(zoo.ids()) - {with_experts(zoo)}
    with pytest.raises(IncompatibleWeights, match="needs a model with experts, not vit"):
        merge(zoo, "experts_average", models=[id])


def test_it_takes_one_model(zoo):
    with pytest.raises(InvalidInput, match="needs 1 model; 2 are given"):
        merge(zoo, "experts_average", models=zoo.ids())


def test_tensors_of_no_expert_stay():
    tensors = {
        "a.experts.0.w": torch.tensor([1.0]),
        "a.experts.1.w": torch.tensor([4.0]),
        "b": torch.tensor([7.0], dtype=torch.bfloat16),
    }
    made = averaged(tensors)
    assert {name: tensor.item() for name, tensor in made.items()} == {"a.w": 2.5, "b": 7}
    assert made["b"].dtype == torch.bfloat16


def test_weights_without_experts_are_refused():
    with pytest.raises(IncompatibleWeights, match="m has no experts"):
        averaged({"w": torch.ones(2)})


def test_entries_that_are_not_finite_are_refused():
    with pytest.raises(IncompatibleWeights, match=r"m: a\.experts\.1\.w has entries"):
        averaged({"a.experts.0.w": torch.ones(1), "a.experts.1.w": torch.full((1,), torch.nan)})
