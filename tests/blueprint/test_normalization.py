"""By which mean and std a planned model normalizes images: its own, its parent's or the data's."""

import pytest

from vitarium import Blueprint, plan
from vitarium.blueprint import Imported
from vitarium.blueprint.parents import Parent
from vitarium.blueprint.spec import restored
from vitarium.core.config import InvalidConfig
from vitarium.data.preprocessing import preprocessing_of

VIT = {"name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
CHILD = {"start": {"models": ["3f2a"]}, "data": "cifar10", "epochs": 1, "batch_size": 16}
HALVES = {"data.mean": [0.5] * 3, "data.std": [0.25] * 3}
PARENT = "3f2a" * 3


def imported(in_chans=3, **settings):
    architecture = VIT | {"in_chans": in_chans}
    values = {"source": "s", "name": "n", "weights": "w", "architecture": architecture}
    return Imported.read({**values, "settings": settings})


def planned(origin, **stages):
    values = Blueprint.read({"name": "x", "stages": stages})
    return plan(values, lambda start: [Parent(PARENT, origin, (0,))])


def problem(origin, **stages):
    with pytest.raises(InvalidConfig) as refused:
        planned(origin, **stages)
    (only,) = refused.value.problems
    return only


def means(models):
    return [preprocessing_of(model).mean for model in models]


def test_what_starts_from_an_imported_model_is_normalized_as_it_and_so_are_its_children():
    child, grandchild = planned(
        imported(**HALVES), child=CHILD, grandchild={**CHILD, "start": "child"}
    ).models
    for model in (child, grandchild):
        assert preprocessing_of(model).normalization == ((0.5,) * 3, (0.25,) * 3)
        assert model.described()["normalization.mean"] == [0.5] * 3
        assert restored(model.factors()) == model


def test_a_blueprint_may_ask_for_the_data_sets_or_for_any_mean_and_std():
    own = planned(imported(**HALVES), x={**CHILD, "normalization": "data"}).models
    unknown = planned(imported(), x=CHILD).models
    assert own == unknown  # the id, too
    assert means(own)[0] == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    grid = {"normalization": ["data", {"mean": 0.1, "std": 0.2}, {"mean": [0.5], "std": [0.5]}]}
    swept = planned(imported(**HALVES), x={**CHILD, "grid": grid})
    assert means(swept.models)[1:] == [(0.1,) * 3, (0.5,) * 3]
    assert len({model.id for model in swept.models}) == 3
    assert swept.normalizations == {"x": ["0.1/0.2", "0.5/0.5"]}


def test_the_data_sets_normalization_enters_no_id(tiny):
    for model in plan(Blueprint.read(tiny)).models:
        values = model.factors()
        del values["recipe"]["normalization"]
        assert "normalization" not in model.recipe.identity()
        assert restored(values).id == model.id


def test_a_parent_that_takes_its_data_sets_passes_nothing_on():
    stages = {"parent": {**CHILD, "start": "scratch", "architecture": VIT, "data": "cifar100"}}
    models = planned(None, **stages, child={**CHILD, "start": "parent"}).models
    assert [model.recipe.normalization for model in models] == [None, None]
    assert len(set(means(models))) == 2


@pytest.mark.parametrize("in_chans", [1, 5])
def test_a_child_of_gray_or_spectral_images_takes_the_mean_of_the_colors(in_chans):
    origin = imported(**{"data.mean": [0.4, 0.5, 0.6], "data.std": [0.1, 0.2, 0.3]})
    (model,) = planned(origin, x={**CHILD, "architecture": {"in_chans": in_chans}}).models
    preprocessing = preprocessing_of(model)
    assert preprocessing.mean == pytest.approx((0.5,) * in_chans)
    assert preprocessing.std == pytest.approx((0.2,) * in_chans)


def test_channels_that_do_not_fit_are_a_mistake_of_the_blueprint():
    spectral = imported(5, **{"data.mean": [0.5] * 5, "data.std": [0.5] * 5})
    assert means(planned(spectral, x=CHILD).models) == [(0.5,) * 5]
    refused = problem(spectral, x={**CHILD, "architecture": {"in_chans": 3}})
    assert refused.path == ("stages", "x", "normalization")
    assert "mean has 5 values, and the model's images 3 channels" in refused.message
    own = {"mean": [0.5], "std": [0.5, 0.5]}
    refused = problem(imported(), x={**CHILD, "grid": {"normalization": [own]}})
    assert refused.path == ("stages", "x", "grid", "normalization")
    assert "std has 2 values" in refused.message


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ("imagenet", (), "neither `data`"),
        ({"mean": [0.5], "std": [0]}, ("std", 0), "greater than 0"),
        ({"mean": [0.5], "std": []}, ("std",), "at least 1"),
        ({"mean": ["a"], "std": [1]}, ("mean", 0), "number"),
        ({"mean": [0.5]}, ("std",), "missing"),
    ],
)
def test_what_is_no_normalization_is_refused_where_it_stands(value, path, message):
    refused = problem(imported(), x={**CHILD, "normalization": value})
    assert refused.path == ("stages", "x", "normalization", *path)
    assert message in refused.message


@pytest.mark.parametrize("mean", ["red", [], ["red"], {"r": 1}])
def test_what_an_importer_wrote_and_makes_no_sense_is_refused_until_it_is_set_anew(mean):
    origin = imported(**{"data.mean": mean, "data.std": [0.5]})
    refused = problem(origin, x=CHILD)
    assert refused.path == ("stages", "x", "normalization")
    assert "the parent's mean and std cannot be used (mean" in refused.message
    assert planned(origin, x={**CHILD, "normalization": "data"}).models


def test_channels_of_parents_that_are_not_there_may_fit():
    own = {"mean": [0.5] * 4, "std": [0.5] * 4}
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read({"name": "x", "stages": {"x": {**CHILD, "normalization": own}}}))
    assert [found.path for found in refused.value.problems] == [("stages", "x", "start")]
