"""What task vectors are the differences to."""

import pytest
import torch

from vitarium import Blueprint, grow, merge
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.operators.base import operator


@pytest.fixture(autouse=True)
def _start(own_registry):
    """An operator that gives the base."""

    @operator("start", title="Start", needs_base=True, models=(1, None))
    def start(config: NoConfig, ingredients):
        """What the models started from."""
        for name, base, _ in ingredients.deltas():
            yield name, base


def test_it_is_the_common_parent_with_the_head_that_the_children_started_with(grown_zoo, siblings):
    base = grown_zoo.state_dict(merge(grown_zoo, "start", models=siblings).id)
    first = grown_zoo.state_dict(siblings[0], 0)
    assert all(torch.equal(base[name], tensor) for name, tensor in first.items())
    parent = grown_zoo.state_dict(grown_zoo.spec(siblings[0]).parent)
    assert not torch.equal(base["head.weight"], parent["head.weight"])


def test_a_model_may_be_named_as_the_base(grown_zoo, siblings):
    merged_id = merge(grown_zoo, "start", models=siblings, base=f"{siblings[0]}@0").id
    assert (grown_zoo.spec(merged_id).parent, grown_zoo.spec(merged_id).parent_epoch) == (
        siblings[0],
        0,
    )
    base, first = grown_zoo.state_dict(merged_id), grown_zoo.state_dict(siblings[0], 0)
    assert all(torch.equal(base[name], tensor) for name, tensor in first.items())


def test_models_without_a_common_parent_need_a_named_base(grown_zoo, siblings):
    other = next(i for i in grown_zoo.ids() if grown_zoo.spec(i).parent and i not in siblings)
    with pytest.raises(InvalidInput, match=r"different parents: \w+@2 of \w+ and \w+@2 of \w+"):
        merge(grown_zoo, "start", models=[siblings[0], other])
    with pytest.raises(InvalidInput, match=r"has no parent; name a base"):
        merge(grown_zoo, "start", models=[grown_zoo.spec(siblings[0]).parent])
    parent = grown_zoo.spec(other).parent
    assert merge(grown_zoo, "start", models=[siblings[0], other], base=parent, heads="average").id


def test_a_base_is_refused_where_it_is_of_no_use(grown_zoo, siblings):
    with pytest.raises(InvalidInput, match="uniform_soup has no use for a base"):
        merge(grown_zoo, "uniform_soup", models=siblings, base=siblings[0])


def test_heads_that_started_differently_have_no_base(tiny, tmp_path):
    del tiny["stages"]["pretrain"]["grid"]
    tiny["stages"]["finetune"]["grid"] = {"head.seed": [1, 2]}
    zoo = grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo
    children = [id for id in zoo.ids() if zoo.spec(id).parent]
    with pytest.raises(
        IncompatibleWeights, match=r"head\.weight has no common base; name a .*base=ID"
    ):
        merge(zoo, "start", models=children)
    merged_weights = zoo.state_dict(merge(zoo, "start", models=children, heads="average").id)
    parent = zoo.state_dict(zoo.spec(children[0]).parent)
    heads = [zoo.state_dict(id)["head.weight"].double() for id in children]
    assert torch.equal(merged_weights["head.weight"], (sum(heads) / 2).float())
    assert torch.equal(merged_weights["norm.weight"], parent["norm.weight"])


def test_the_base_has_the_childrens_kind_of_head_and_not_the_parents(tiny, tmp_path):
    tiny["stages"]["pretrain"]["grid"] = {"seed": [1]}
    tiny["stages"]["finetune"]["head"] = {"name": "mlp", "hidden_dim": 5}
    zoo = grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False).zoo
    children = [id for id in zoo.ids() if zoo.spec(id).parent]
    base = zoo.state_dict(merge(zoo, "start", models=children).id)
    first = zoo.state_dict(children[0], 0)
    assert base.keys() == first.keys()
    assert all(torch.equal(base[name], tensor) for name, tensor in first.items())
