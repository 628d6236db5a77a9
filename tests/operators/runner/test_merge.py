"""What is made of models is a model of the zoo that knows what it is made of."""

import pytest
import torch

from vitarium import Zoo, merge
from vitarium.core.config import NoConfig
from vitarium.core.errors import CorruptFile, IncompatibleWeights, InvalidInput, UnknownName
from vitarium.operators._runner import plan
from vitarium.operators.base import operator
from vitarium.zoo.verify import verify


def test_a_soup_is_the_mean_of_its_ingredients(grown_zoo, siblings):
    soup = grown_zoo.state_dict(merge(grown_zoo, "uniform_soup", models=siblings).id)
    parts = [grown_zoo.state_dict(id) for id in siblings]
    for name, tensor in soup.items():
        expected = sum(part[name].double() for part in parts) / 2
        assert torch.equal(tensor, expected.float())


def test_a_merged_model_is_a_model_of_the_zoo(grown_zoo, siblings):
    id = siblings[0]
    soup_id = merge(grown_zoo, "uniform_soup", models=[f"{id}@0", f"{id[:8]}@1"], stage="soups").id
    again = Zoo.open(grown_zoo.path)
    assert again.load(soup_id)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    spec = again.spec(soup_id)
    assert spec.operator.name == "uniform_soup"
    assert [(one.model, one.epoch) for one in spec.ingredients] == [(id, 0), (id, 1)]
    assert again.models().query("stage == 'soups'")["id"].tolist() == [soup_id]


def test_merging_again_is_the_same_model_and_computes_nothing(grown_zoo, siblings):
    first = merge(grown_zoo, "uniform_soup", models=siblings).id
    file = grown_zoo.folder(first).path / "model.json"
    written = file.stat().st_mtime_ns
    assert merge(grown_zoo, "uniform_soup", models=siblings[::-1]).id == first
    assert file.stat().st_mtime_ns == written
    with pytest.warns(UserWarning, match=f"{first} is in the zoo already, of stage 'merge'"):
        again = merge(grown_zoo, "uniform_soup", models=siblings, stage="soups")
    assert (again, again.stage) == (grown_zoo[first], "merge")
    assert merge(grown_zoo, "slerp", models=siblings).id != first


def test_a_large_result_is_laid_on_disk_and_kept_plain(grown_zoo, siblings, monkeypatch):
    soup_weights = grown_zoo.state_dict(merge(grown_zoo, "uniform_soup", models=siblings).id)
    monkeypatch.setattr(plan, "IN_MEMORY", 0)
    written, scratch = [], plan.scratch
    monkeypatch.setattr(plan, "scratch", lambda *to: written.append(1) or scratch(*to))
    again = merge(grown_zoo, "interpolation", models=siblings).id
    assert len(written) == len(soup_weights)
    assert not list((grown_zoo.path / "cache").iterdir())
    assert not grown_zoo.checkpoint(again).is_packed
    assert all(torch.equal(t, soup_weights[n]) for n, t in grown_zoo.state_dict(again).items())
    assert not verify(grown_zoo.path, deep=True)


def test_a_merge_that_was_interrupted_is_made_again(grown_zoo, siblings):
    soup_id = merge(grown_zoo, "uniform_soup", models=siblings).id
    weights = grown_zoo.state_dict(soup_id)
    (grown_zoo.folder(soup_id).path / "result.json").unlink()
    assert merge(grown_zoo, "uniform_soup", models=siblings).id == soup_id
    assert grown_zoo.folder(soup_id).status == "finished"
    assert all(torch.equal(t, weights[n]) for n, t in grown_zoo.state_dict(soup_id).items())


def test_what_an_operator_needs_is_given(grown_zoo, siblings, own_registry):
    seen = {}

    @operator(
        "look", title="Look", ordered=True, needs_base=True, split="val", models=(2, 2), origin=-1
    )
    def look(config: NoConfig, ingredients):
        """Looks at all there is."""
        seen.update(
            names=ingredients.names,
            split=ingredients.examples().split,
            groups=set(ingredients.symmetries.groups),
        )
        model = ingredients.model()
        assert not model.training
        own = model.state_dict()
        assert all(torch.equal(own[name], ingredients[0][name]) for name in ingredients[0])
        ingredients.log.metrics["val_accuracy"] = 0.5
        ingredients.log.lines.append("it looked")
        for name, base, deltas in ingredients.deltas():
            yield name, base + deltas[1]

    merged_id = merge(grown_zoo, "look", models=siblings).id
    assert seen["names"] == [f"{id}@1" for id in siblings]
    assert seen["split"] == "val"
    assert "stream" in seen["groups"]
    spec = grown_zoo.spec(merged_id)
    assert spec.parent == grown_zoo.spec(siblings[0]).parent
    assert spec.recipe == grown_zoo.spec(siblings[1]).recipe
    assert grown_zoo.folder(merged_id).epochs()[-1].metrics == {"val_accuracy": 0.5}
    assert grown_zoo.folder(merged_id).result()["message"] == "it looked"
    last = grown_zoo.state_dict(siblings[1])
    assert all(torch.allclose(t, last[n]) for n, t in grown_zoo.state_dict(merged_id).items())


def test_models_that_do_not_fit_are_named_with_the_tensor(grown_zoo, siblings, tiny):
    from vitarium import Blueprint, grow

    tiny["stages"] = {"pretrain": tiny["stages"]["pretrain"]}
    tiny["stages"]["pretrain"]["architecture"]["embed_dim"] = 8
    del tiny["stages"]["pretrain"]["grid"]
    other = grow(Blueprint.read(tiny), grown_zoo.path, workers=0, progress=False).plan.models[0].id
    before = len(grown_zoo)
    with pytest.raises(IncompatibleWeights, match=rf"{other}@2.*\[\d+, 8\]|\[\d+, 8\].*{other}@2"):
        merge(grown_zoo, "uniform_soup", models=[siblings[0], other])
    assert len(grown_zoo) == before


def test_a_damaged_ingredient_is_named(grown_zoo, siblings):
    path = grown_zoo.folder(siblings[0]).checkpoints.path(1)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptFile, match=r"epoch-0001"):
        merge(grown_zoo, "uniform_soup", models=siblings)


def _spoilt(zoo, id):
    """The model's weights after an epoch more, one of them not a number."""
    weights = zoo.state_dict(id)
    weights["norm.weight"] = weights["norm.weight"].clone().fill_(float("nan"))
    zoo.folder(id).commit(2, {}, weights, None)
    return f"{id}@2"


def test_weights_that_are_not_finite_are_named_or_left_out(grown_zoo, siblings):
    spoilt = _spoilt(grown_zoo, siblings[0])
    chosen = [spoilt, f"{siblings[0]}@1", siblings[1]]
    with pytest.raises(IncompatibleWeights, match=rf"{siblings[0]}@2: norm.weight has entries"):
        merge(grown_zoo, "uniform_soup", models=chosen)
    soup_id = merge(grown_zoo, "uniform_soup", models=chosen, skip_diverged=True).id
    assert soup_id == merge(grown_zoo, "uniform_soup", models=chosen[1:]).id
    with pytest.raises(InvalidInput, match="needs at least 2 models; 1 is given"):
        merge(grown_zoo, "uniform_soup", models=chosen[:2], skip_diverged=True)


def test_a_diverged_model_is_refused_or_left_out(grown_zoo, siblings):
    other = next(id for id in grown_zoo.ids() if id not in siblings)
    grown_zoo.folder(other).finish("diverged", "the loss was not finite")
    with pytest.raises(InvalidInput, match=f"model {other} diverged; leave it out"):
        merge(grown_zoo, "uniform_soup", models=[*siblings, other])
    soup_id = merge(grown_zoo, "uniform_soup", models=[*siblings, other], skip_diverged=True).id
    assert [one.model for one in grown_zoo.spec(soup_id).ingredients] == sorted(siblings)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "say which models to merge: their ids, or a condition"),
        (["{id}"], "needs at least 2 models; 1 is given"),
        (["{id}", "{id}"], "is named more than once"),
        (["{id}@x"], "write an epoch as a number"),
        (["{id}@9"], "no weights of epoch 9"),
    ],
)
def test_bad_choices_are_refused(grown_zoo, models, message):
    with pytest.raises(InvalidInput, match=message):
        merge(
            grown_zoo,
            "uniform_soup",
            models=[model.format(id=grown_zoo.ids()[0]) for model in models],
        )


def test_an_unknown_operator_names_the_nearest(grown_zoo):
    with pytest.raises(UnknownName, match="did you mean 'uniform_soup'"):
        merge(grown_zoo, "uniform_sou", models=grown_zoo.ids())


def test_selecting_by_images_that_were_trained_on_has_to_be_forced(
    grown_zoo, siblings, own_registry
):
    @operator("select", title="Select", split="val")
    def select(config: NoConfig, ingredients):
        """Looks at validation images."""
        len(ingredients.examples())
        yield from ingredients[0].items()

    parent = grown_zoo.spec(siblings[0]).parent  # its split of the same images is another
    with pytest.raises(InvalidInput, match=f"model {parent} was trained on images of the val"):
        merge(grown_zoo, "select", models=[siblings[0], parent])
    merge(grown_zoo, "select", models=[siblings[0], parent], force=True)
