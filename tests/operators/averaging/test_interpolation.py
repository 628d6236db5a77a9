"""Points on straight lines: interpolation, wise_ft."""

import pytest
import torch

from vitarium import merge
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

ONE, OTHER = (
    Weights(name, {"w": torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))})
    for seed, name in enumerate(("one", "other"))
)


@pytest.mark.parametrize("t", [0, 0.25, 1, 1.5, -0.5])
def test_a_point_on_the_line(t):
    made = dict(registry.choose("operator", "interpolation", t=t)(Ingredients([ONE, OTHER])))
    one, other = ONE["w"].double(), OTHER["w"].double()
    assert torch.allclose(made["w"], one + t * (other - one), rtol=1e-14, atol=1e-14)


def test_the_ends_are_the_models_and_the_order_counts():
    for t, end in ((0, ONE), (1, OTHER)):
        made = dict(registry.choose("operator", "interpolation", t=t)(Ingredients([ONE, OTHER])))
        assert torch.equal(made["w"].float(), end["w"])


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_between_a_model_and_itself_is_that_model(t):
    made = dict(registry.choose("operator", "interpolation", t=t)(Ingredients([ONE, ONE])))
    assert torch.equal(made["w"].float(), ONE["w"])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_wise_ft_lies_between_parent_and_child(grown_zoo, alpha):
    child = grown_zoo.models().query("stage == 'finetune'")["id"].iloc[0]
    merged_weights = grown_zoo.state_dict(
        merge(grown_zoo, "wise_ft", models=[child], alpha=alpha).id
    )
    parent = grown_zoo.state_dict(grown_zoo.spec(child).parent)
    start, end = grown_zoo.state_dict(child, 0), grown_zoo.state_dict(child)
    for name, tensor in merged_weights.items():
        base = (start if "head" in name else parent)[name].double()
        expected = (base + alpha * (end[name].double() - base)).float()
        assert torch.allclose(tensor, expected, rtol=1e-6, atol=1e-8)


def test_wise_ft_of_a_model_that_is_as_its_parent_is_that_model():
    made = registry.choose("operator", "wise_ft")(Ingredients([ONE], base=lambda: ONE))
    assert torch.equal(dict(made)["w"].float(), ONE["w"])


def test_wise_ft_takes_one_model_with_a_parent(grown_zoo):
    table = grown_zoo.models()
    ids = table.query("stage == 'finetune'")["id"].tolist()
    with pytest.raises(InvalidInput, match="needs 1 model; 2 are given"):
        merge(grown_zoo, "wise_ft", models=ids[:2])
    alone = table.query("stage == 'pretrain'")["id"].iloc[0]
    with pytest.raises(InvalidInput, match="has no parent"):
        merge(grown_zoo, "wise_ft", models=[alone])
    with pytest.raises(InvalidConfig, match="alpha"):
        merge(grown_zoo, "wise_ft", models=ids[:1], alpha=1.5)
