"""What holds for every adaptation."""

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, merge
from vitarium.core.registry import plugins
from vitarium.testing import check_adaptation
from vitarium.zoo.verify import verify

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("name", plugins("adaptation"))
def test_contract(name):
    check_adaptation(name)


def blueprint(*adaptations, **settings):
    shared = {"data": "digits", "batch_size": 128, "optimizer": {"name": "adamw", "lr": 0.01}}
    finetune = {**shared, "start": {"stage": "pretrain"}, "epochs": 2, **settings}
    finetune["grid"] = {"adaptation": list(adaptations)}
    pretrain = {**shared, "architecture": ARCHITECTURE, "epochs": 1}
    return Blueprint.read(
        {"name": "adapted", "stages": {"pretrain": pretrain, "finetune": finetune}}
    )


def tiny(name):
    return {"name": name, **(plugins("adaptation")[name].facts["tiny"] or {})}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "zoo"
    grow(
        blueprint(*map(tiny, plugins("adaptation"))),
        folder,
        stacked=1,
        precision="fp32",
        progress=False,
    )
    return Zoo.open(folder)


@pytest.fixture
def children(zoo):
    return {m.spec.recipe.adaptation.name: m for m in zoo if m.parent}


def test_what_is_frozen_is_the_parents_bit_by_bit(zoo, children):
    for name, child in children.items():
        parent = zoo.state_dict(child.parent)
        skeleton = child.load(plain=False)
        child.spec.recipe.adapt(unadapted := child.spec.recipe.build_unadapted(10))
        learns = {n for n, p in unadapted.named_parameters() if p.requires_grad}
        assert learns
        for tensor_name, tensor in skeleton.state_dict().items():
            if tensor_name in parent and tensor_name not in learns:
                assert torch.equal(tensor, parent[tensor_name]), (name, tensor_name)


def test_the_plain_view_is_the_same_function_of_plain_weights(zoo, children):
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, child in children.items():
        plain, trained = child.load(), child.load(plain=False)
        assert (plain(images) - trained(images)).abs().max() < 1e-5, name
        if not child.spec.recipe.adaptation.facts["adds_modules"]:
            assert plain.state_dict().keys() == zoo.state_dict(child.parent).keys()


def test_what_an_operator_makes_of_adapted_models_is_plain_in_both_views(tmp_path):
    values = blueprint("lora", epochs=1, variants=[{"seed": 1}, {"seed": 2}])
    siblings = grow(values, tmp_path, stacked=1, precision="fp32", progress=False).zoo
    soup = merge(siblings, "uniform_soup", where="stage = 'finetune'")
    plain, trained = soup.load().state_dict(), soup.load(plain=False).state_dict()
    assert plain.keys() == trained.keys()
    assert all(torch.equal(plain[name], trained[name]) for name in plain)
    assert verify(tmp_path, deep=True) == []


def test_a_zoo_of_them_is_whole(zoo):
    assert verify(zoo.path, deep=True) == []
