"""What a stage starts from: through an operator, with the parent's head, or models of the zoo."""

from typing import Any

import pytest

from vitarium import Blueprint, Zoo, create_model, grow, plan
from vitarium.blueprint.spec import restored
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotAZoo
from vitarium.engine.parents import parents_in


@pytest.fixture
def compact(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny blueprint with a stage of compact twins of its fine-tuned models."""
    tiny["stages"]["pretrain"]["architecture"]["depth"] = 2
    tiny["stages"]["compact"] = {
        "start": {
            "stage": "finetune",
            "operator": {"name": "minivit", "share": 2},
            "keep_head": True,
        },
        "data": "digits",
        "epochs": 1,
        "batch_size": 16,
        "objective": "soft_distillation",
    }
    return tiny


def planned(values: dict[str, Any], **more: Any) -> Any:
    return plan(Blueprint.read(values), **more)


def problems(values: dict[str, Any], **more: Any) -> list[Any]:
    with pytest.raises(InvalidConfig) as refused:
        planned(values, **more)
    return refused.value.problems


def test_an_operator_decides_the_architecture_of_what_starts_through_it(compact):
    compact["stages"]["compact"]["architecture"] = {"drop_path_rate": 0.1}
    found = planned(compact)
    for twin in found.of_stage("compact"):
        parent = found[twin.parent].recipe
        assert twin.recipe.architecture.name == "mini_deit"
        assert twin.recipe.architecture.config.embed_dim == parent.architecture.config.embed_dim
        assert twin.recipe.architecture.config.drop_path_rate == 0.1
        assert twin.recipe.head == parent.head
        assert twin.conversion.config.share == 2
        assert twin.keep_head


def test_the_way_to_start_is_part_of_the_id_and_comes_back_from_json(compact):
    twin = planned(compact).of_stage("compact")[0]
    assert restored(twin.factors()) == twin
    assert restored(twin.factors()).id == twin.id
    others = [{"keep_head": False}, {"conversion": None}]
    ids = {restored({**twin.factors(), **other}).id for other in others}
    assert len({twin.id, *ids}) == 3


def test_a_child_without_a_conversion_has_the_id_that_it_always_had(tiny):
    """Models that were grown before there were conversions say nothing of them."""
    child = planned(tiny).of_stage("finetune")[0]
    before = {k: v for k, v in child.factors().items() if k not in ("conversion", "keep_head")}
    assert restored(before).id == child.id
    assert restored({**before, "conversion": None, "keep_head": False}).id == child.id


def test_a_stage_may_follow_the_twins_on_other_data(compact):
    compact["stages"]["transfer"] = {
        "start": "compact",
        "data": "mnist5k",
        "epochs": 1,
        "batch_size": 16,
    }
    found = planned(compact)
    for child in found.of_stage("transfer"):
        assert child.recipe.architecture == found[child.parent].recipe.architecture
        assert child.conversion is None


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"stage": "finetune", "operator": "uniform_soup"}, "does not work on the weights of one"),
        ({"stage": "finetune", "operator": {"name": "minivit", "share": 3}}, "does not divide 2"),
        ({"stage": "finetune", "operator": {"name": "minivit", "init": "best"}}, "best"),
        ({"stage": "finetune", "models": ["3f2a"]}, "one of"),
        ({}, "one of"),
        ({"models": ["3f2a"]}, "name it: zoo=DIR"),
    ],
)
def test_a_bad_start_is_refused_where_it_stands(compact, start, message):
    compact["stages"]["compact"]["start"] = start
    found = problems(compact)
    assert any(message in problem.message for problem in found)
    assert all(problem.path[:3] == ("stages", "compact", "start") for problem in found)


def test_an_architecture_beside_an_operator_is_refused(compact):
    compact["stages"]["compact"]["architecture"] = "vit"
    assert "leave out its name" in problems(compact)[0].message


def test_a_stage_starts_from_models_of_the_zoo(grown_zoo):
    finetuned = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    stage = {"data": "mnist5k", "epochs": 1, "batch_size": 16}
    values = {
        "name": "more",
        "stages": {
            "one": {**stage, "start": {"models": [finetuned[0][:8]]}},
            "all": {**stage, "start": {"where": "stage = 'finetune'"}},
        },
    }
    found = planned(values, find=parents_in(grown_zoo.path))
    assert [model.parent for model in found.of_stage("one")] == finetuned[:1]
    # a model that two stages ask for is one
    assert {model.parent for model in found.models} == set(finetuned)
    own = grown_zoo.spec(finetuned[0]).recipe.architecture
    assert found.models[0].recipe.architecture == own


def test_a_model_that_starts_from_the_zoo_is_grown_there(grown_zoo):
    parent = next(id for id in grown_zoo.ids() if grown_zoo.spec(id).parent)
    stage = {
        "start": {"models": [parent], "operator": {"name": "minivit", "share": "all"}},
        "data": {"name": "mnist5k", "train_limit": 32},
        "epochs": 1,
        "batch_size": 16,
    }
    blueprint = Blueprint.read({"name": "more", "stages": {"transfer": stage}})
    growth = grow(blueprint, grown_zoo.path, workers=0, progress=False)
    (child,) = growth.grown
    assert grown_zoo.spec(child).parent == parent
    assert any(name.startswith("shared.0.") for name in grown_zoo.checkpoint(child))


def test_models_that_the_zoo_has_not_are_refused(grown_zoo, tmp_path):
    stage = {"data": "mnist5k", "epochs": 1, "batch_size": 16}
    for start, message in [
        ({"models": ["zzz"]}, "zzz"),
        ({"where": "stage = 'none'"}, "no model"),
        ({"where": "nonsense = 1"}, "nonsense"),
        ({"where": "stage = 'finetune'", "epoch": 77}, "does not keep epoch 77"),
    ]:
        values = {"name": "more", "stages": {"s": {**stage, "start": start}}}
        found = problems(values, find=parents_in(grown_zoo.path))
        assert message in found[0].message
        assert found[0].path[:3] == ("stages", "s", "start")
    values = {"name": "more", "stages": {"s": {**stage, "start": {"models": ["3f2a"]}}}}
    with pytest.raises((InvalidConfig, NotAZoo), match="is not a zoo"):
        planned(values, find=parents_in(tmp_path / "nowhere"))


def test_a_start_may_name_an_epoch_of_a_model(grown_zoo):
    parent = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    stage = {"data": "digits", "epochs": 1, "batch_size": 16}
    stage["start"] = {"models": [f"{parent[:6]}@1"]}
    values = {"name": "more", "stages": {"child": stage}}
    (child,) = planned(values, find=parents_in(grown_zoo.path)).models
    assert (child.parent, child.parent_epoch) == (parent, 1)
    stage["start"]["epoch"] = 2
    assert "does not keep epoch 2" in problems(values, find=parents_in(grown_zoo.path))[0].message


def test_a_zoo_may_lie_in_the_home_folder(grown_zoo, monkeypatch):
    monkeypatch.setenv("HOME", str(grown_zoo.path.parent))
    assert Zoo.open(f"~/{grown_zoo.path.name}").ids() == grown_zoo.ids()
    assert Zoo.create(f"~/{grown_zoo.path.name}").path == grown_zoo.path


def test_a_new_model_with_downloaded_weights_is_refused_with_what_to_do():
    for name in ("vit", "vit_tiny_patch16_224"):
        with pytest.raises(InvalidConfig, match="vitarium import"):
            create_model(name, pretrained=True)
