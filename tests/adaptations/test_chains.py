"""Every adaptation after every other: what a child starts from, or why there is none."""

import functools

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import plugins
from vitarium.engine.check import ModelCheck
from vitarium.training.start import started_model
from vitarium.zoo.merged_checkpoint import is_factor, layer_weights
from vitarium.zoo.verify import verify

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
SHARED = {"data": {"name": "digits", "train_limit": 64}, "batch_size": 32, "epochs": 1}
ALL = list(plugins("adaptation"))
ADDING = [n for n in ALL if plugins("adaptation")[n].facts["adds_modules"]]
IMAGES = torch.randn(2, 1, 8, 8)


def tiny(name, **settings):
    return {"name": name, **(plugins("adaptation")[name].facts["tiny"] or {}), **settings}


def chain(*adaptations, **settings):
    """A blueprint of as many stages, each of which starts from the one before."""
    stages = {"pretrain": {**SHARED, "architecture": ARCHITECTURE}}
    for number, adaptation in enumerate(adaptations):
        start = {"stage": list(stages)[-1], "keep_head": True}
        stages[f"stage-{number}"] = {**SHARED, "start": start, "adaptation": adaptation, **settings}
    return {"name": "chain", "stages": stages}


@functools.cache
def spec_of(name):
    return plan(Blueprint.read(chain(tiny(name)))).models[1]


def trained(model):
    """Numbers as training may leave them in what learns."""
    torch.manual_seed(1)
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def plain_weights(model, adaptation):
    tensors = model.state_dict()
    factors = {n: t for n, t in tensors.items() if is_factor(n)}
    weights = {n: t.clone() for n, t in tensors.items() if n not in factors}
    for name in layer_weights(factors):
        weights[name] = adaptation.facts["merge"](adaptation.config, name, weights[name], factors)
    return weights


@functools.cache
def parent_of(name):
    """A model of an adaptation, trained, and its weights as children see them."""
    spec = spec_of(name)
    base = spec.recipe.build_unadapted(10).state_dict()
    model = trained(started_model(spec, 10, base)[0])
    return model, plain_weights(model, spec.recipe.adaptation)


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", [n for n in ALL if n not in ADDING])
def test_a_child_starts_as_its_parent_is_and_keeps_what_is_frozen(first, second):
    model, weights = parent_of(first)
    spec = spec_of(second)
    child, _ = started_model(spec, 10, weights)
    tensors = child.state_dict()
    assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    if spec.recipe.adaptation.facts["starts_as_parent"]:
        with torch.no_grad():
            assert torch.allclose(child.eval()(IMAGES), model(IMAGES), atol=1e-5)


@pytest.mark.parametrize("name", ADDING)
def test_the_same_adaptation_goes_on_with_what_was_added(name):
    model, weights = parent_of(name)
    child, _ = started_model(spec_of(name), 10, weights)
    tensors = child.eval().state_dict()
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[n], weights[n]) for n in weights)
    learns = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (child, model)]
    assert learns[0] == learns[1]
    with torch.no_grad():
        assert torch.equal(child(IMAGES), model(IMAGES))


def problems(*adaptations, **settings):
    try:
        plan(Blueprint.read(chain(*adaptations, **settings)), None, ModelCheck())
    except InvalidConfig as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("first", ADDING)
def test_all_others_are_refused_in_one_clear_error(first):
    values = chain(tiny(first), "full")
    del values["stages"]["stage-1"]["adaptation"]
    values["stages"]["stage-1"]["grid"] = {"adaptation": [tiny(n) for n in ALL if n != first]}
    with pytest.raises(InvalidConfig) as error:
        plan(Blueprint.read(values), None, ModelCheck())
    (problem,) = map(str, error.value.problems)
    assert problem.startswith("stages.stage-1.start: ")
    assert f"its adaptation '{first}' added, and only a stage of the same adaptation" in problem


def test_other_settings_are_named_but_for_those_of_training():
    assert problems(tiny("vpt", dropout=0.1), tiny("vpt", dropout=0.2)) == []
    (problem,) = problems(tiny("vpt", count=3), tiny("vpt", count=4))
    assert problem.startswith("stages.stage-1.adaptation: ")
    assert "adaptation.count (4 and 3)" in problem


def test_a_zoo_goes_on_with_prompts_from_its_own_models(tmp_path):
    options = {"workers": 0, "precision": "fp32", "stacked": 1, "progress": False}
    values = chain({"name": "lora", "rank": 2}, tiny("vpt"), tiny("vpt"))
    zoo = grow(Blueprint.read(values), tmp_path / "zoo", **options).zoo
    models = {model.spec.stage: model for model in zoo}
    prompts, again = models["stage-1"], models["stage-2"]
    start = again.state_dict(0)
    assert all(torch.equal(start[n], t) for n, t in prompts.state_dict().items())
    ends = [m.state_dict()["blocks.0.prompts.tokens"] for m in (prompts, again)]
    assert not torch.equal(*ends)
    later = {**SHARED, "start": {"models": [again.id]}, "adaptation": tiny("vpt")}
    third = grow({"name": "later", "stages": {"third": later}}, tmp_path / "zoo", **options)
    assert len(third.grown) == 1
    assert verify(Zoo.open(tmp_path / "zoo").path, deep=True) == []
