"""Operators: what they make is a model of the zoo that knows what it is made of."""

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, merge, registry
from vitarium.errors import CorruptFile, IncompatibleWeights, InvalidInput, UnknownName


@pytest.fixture
def zoo(tiny, tmp_path):
    tiny["stages"]["finetune"]["grid"]["head"] = ["linear", {"name": "mlp", "hidden_dim": 4}]
    return grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo


def test_a_soup_is_the_mean_of_its_ingredients(zoo):
    ids = zoo.models().query("stage == 'pretrain'")["id"].tolist()
    soup = zoo.state_dict(merge(zoo, ids, "uniform_soup"))
    parts = [zoo.state_dict(id) for id in ids]
    for name, tensor in soup.items():
        expected = sum(part[name].double() for part in parts) / 2
        assert torch.equal(tensor, expected.float())


def takes_three(plugin):
    return not plugin.facts.get("epochs") and plugin.facts.get("count", (2, None))[1] is None


COMBINING = [name for name, plugin in registry.plugins("operator").items() if takes_three(plugin)]


@pytest.mark.parametrize("operator", COMBINING)
def test_copies_of_one_model_give_that_model(zoo, operator):
    id = zoo.models().query("stage == 'finetune'")["id"].iloc[0]  # it has a base
    made = zoo.state_dict(merge(zoo, [id, id, id], operator))
    assert all(torch.equal(made[n], t) for n, t in zoo.state_dict(id).items())


def test_a_merged_model_is_a_model_of_the_zoo(zoo):
    id = zoo.models().query("stage == 'pretrain'")["id"].iloc[0]
    made = merge(zoo, [f"{id}@1", f"{id[:8]}@2"], "uniform_soup")
    again = Zoo.open(zoo.path)
    assert again.load(made)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    spec = again.spec(made)
    assert spec.operator.name == "uniform_soup"
    assert [(one.model, one.epoch) for one in spec.ingredients] == [(id, 1), (id, 2)]
    assert made in again.models().query("stage == 'merge'")["id"].tolist()


def test_merging_again_is_the_same_model(zoo):
    ids = zoo.models().query("stage == 'pretrain'")["id"].tolist()
    assert merge(zoo, ids, "uniform_soup") == merge(zoo, ids, "uniform_soup")
    assert merge(zoo, ids, "uniform_soup") != merge(zoo, [ids[0], ids[0]], "uniform_soup")


def test_models_that_do_not_fit_are_named_with_the_tensor(zoo):
    table = zoo.models().query("stage == 'finetune'")
    ids = [table[table["head"] == head]["id"].iloc[0] for head in ("linear", "mlp")]
    before = len(zoo)
    with pytest.raises(
        IncompatibleWeights,
        match=rf"{ids[0]}@1 and {ids[1]}@1 .* head\.|{ids[1]}@1 and {ids[0]}@1 .* head\.",
    ):
        merge(zoo, ids, "uniform_soup")
    assert len(zoo) == before


def test_a_damaged_ingredient_is_named(zoo):
    id = zoo.models().query("stage == 'pretrain'")["id"].iloc[0]
    path = zoo.folder(id).checkpoints.path(2)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptFile, match=r"epoch-0002"):
        merge(zoo, [id, id], "uniform_soup")


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([], "needs at least 2 models; none is given"),
        (["{id}@x"], "write an epoch as a number"),
        (["{id}@9"], "no weights of epoch 9"),
    ],
)
def test_bad_choices_are_refused(zoo, models, said):
    with pytest.raises(InvalidInput, match=said):
        merge(zoo, [model.format(id=zoo.ids()[0]) for model in models], "uniform_soup")


def test_an_unknown_operator_names_the_nearest(zoo):
    with pytest.raises(UnknownName, match="did you mean 'uniform_soup'"):
        merge(zoo, zoo.ids(), "uniform_sou")
