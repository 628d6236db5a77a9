"""A part of a plan: what is chosen, and all that it starts from."""

import pytest

from vitarium import Blueprint, grow, plan
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.engine.part import part_of

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}


@pytest.fixture
def whole(tiny):
    return plan(Blueprint.read(tiny))


@pytest.mark.parametrize(
    ("stages", "only", "count"),
    [
        (None, "", {"pretrain": 2, "finetune": 4}),
        (["pretrain"], "", {"pretrain": 2}),
        (["finetune"], "", {"pretrain": 2, "finetune": 4}),
        (None, "seed = 1 and stage = 'pretrain'", {"pretrain": 1}),
        (["finetune"], "lr < 0.005", None),
        (None, "optimizer.lr < 0.005 and stage = 'finetune'", None),
        (None, "optimizer = 'sgd' or architecture.depth = 1", {"pretrain": 2, "finetune": 4}),
        (None, "parent is null", {"pretrain": 2}),
    ],
)
def test_chosen_models_come_with_what_they_start_from(whole, stages, only, count):
    part = part_of(whole, stages, only)
    if count is None:
        low = [m for m in whole.of_stage("finetune") if m.recipe.optimizer.config.lr < 0.005]
        expected = {model.id for model in low} | {model.parent for model in low}
    else:
        assert part.stages == count
        expected = {m.id for m in part.models}
    assert {model.id for model in part.models} == expected
    assert all(model.parent is None or model.parent in part for model in part.models)
    assert [m for m in whole.models if m in part.models] == list(part.models)


def test_what_there_is_not_is_named(whole):
    with pytest.raises(UnknownName, match="unknown stage 'finetun'; did you mean 'finetune'"):
        part_of(whole, ["finetun"])
    with pytest.raises(UnknownName, match="batch_siz"):
        part_of(whole, only="batch_siz = 3")
    with pytest.raises(InvalidInput, match="no model of the plan"):
        part_of(whole, only="seed = 99")
    with pytest.raises(InvalidInput):
        part_of(whole, only="seed = 1; DROP TABLE models")


def test_parts_that_are_grown_one_after_the_other_are_the_zoo(tiny, tmp_path, grown_zoo):
    first = grow(tiny, tmp_path / "zoo", stages=["finetune"], only="lr < 0.005", **PLAIN)
    assert first.complete
    assert len(first.grown) < 6
    rest = grow(tiny, tmp_path / "zoo", **PLAIN)
    assert sorted([*first.grown, *rest.grown]) == grown_zoo.ids()
    for id in grown_zoo.ids():
        content = grown_zoo.folder(id).checkpoint()[1]
        assert rest.zoo.folder(id).checkpoint()[1] == content
