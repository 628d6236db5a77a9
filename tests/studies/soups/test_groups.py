"""Who is combined with whom."""

import pytest

from vitarium import Blueprint, Zoo, plan
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.soups.groups import Group, SiblingGroups
from vitarium.studies.statistics.stages import read_stages
from vitarium.zoo import About


def kept(blueprint, path):
    """A zoo of a blueprint's models, as they are before training."""
    zoo = Zoo.create(path)
    for spec in plan(Blueprint.read(blueprint)).models:
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        for epoch in range(spec.recipe.epochs + 1):
            folder.commit(epoch, {}, spec.recipe.build(10).state_dict(), None)
        folder.finish("finished")
    return zoo


def kin(zoo):
    known = read_stages(zoo, zoo.ids())
    (stage,) = [stage for stage in known.stages if any(stage.parents)]
    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    return SiblingGroups(sources, stage)


@pytest.fixture
def several_heads(tiny, tmp_path):
    """Of each of two parents, children of two heads and two learning rates."""
    tiny["stages"]["finetune"]["grid"]["head"] = ["linear", {"name": "mlp", "hidden_dim": 4}]
    return kin(kept(tiny, tmp_path / "zoo"))


def factor(found, group: Group, name: str) -> set[str]:
    labels = next(f.labels for f in found.factors if f.name == name)
    return {labels[one.model] for one in group.members}


def test_a_family_has_one_parent_and_one_shape(several_heads):
    assert len(several_heads.families) == 4
    for group in several_heads.families:
        assert len(group) == 2
        assert len(factor(several_heads, group, "head")) == 1
        assert several_heads.mergeable(group)
        (parent,) = {several_heads.zoo.spec(child.model).parent for child in group.members}
        assert group.name.startswith(f"{parent[:8]} · head = ")


def test_children_of_several_shapes_are_one_more_group(several_heads):
    assert [len(group) for group in several_heads.mixed] == [4, 4]
    assert not any(map(several_heads.mergeable, several_heads.mixed))


def test_parts_share_a_value_and_are_no_family_again(several_heads):
    assert {(part.factor, len(part)) for part in several_heads.parts()} == {("lr", 2)}
    assert len(several_heads.parts()) == 4
    for part in several_heads.parts():
        assert factor(several_heads, part, "lr") == {part.value}


def test_children_of_one_shape_are_one_family(tiny, tmp_path):
    found = kin(kept(tiny, tmp_path / "zoo"))
    assert [len(group) for group in found.families] == [2, 2]
    assert found.mixed == []
    assert found.parts() == []


def test_children_of_different_data_are_not_combined(tiny, tmp_path):
    tiny["stages"]["finetune"]["grid"] = {"data.split_seed": [1, 2]}
    found = kin(kept(tiny, tmp_path / "zoo"))
    assert found.families == []


def test_heads_that_started_alike_are_told_from_others(tiny, tmp_path):
    alike = kin(kept(tiny, tmp_path / "alike"))
    assert all(map(alike.same_start, alike.families))
    tiny["stages"]["finetune"]["grid"]["head.seed"] = [1, 2]
    apart = kin(kept(tiny, tmp_path / "apart"))
    assert not any(map(apart.same_start, apart.families))


def test_what_operators_made_is_nobodys_child(tiny, tmp_path):
    from vitarium import merge

    zoo = kept(tiny, tmp_path / "zoo")
    members = [one.model for one in kin(zoo).families[0].members]
    soup_id = merge(zoo, "uniform_soup", models=members, stage="finetune").id
    assert soup_id not in kin(zoo).members
