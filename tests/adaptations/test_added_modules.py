"""Models with prompts, adapters or tangents in a zoo: read, measured, merged, exported, refused."""

import pytest
import torch

from vitarium import Blueprint, Zoo, export, grow, measure, merge, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import plugins
from vitarium.engine.check import ModelCheck
from vitarium.engine.parents import parents_in
from vitarium.formats.import_zoo import import_zoo
from vitarium.training._stack_key import stack_key

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
SHARED = {"data": {"name": "digits", "train_limit": 256}, "batch_size": 64, "epochs": 1}
ADDING = [n for n, p in plugins("adaptation").items() if p.facts["adds_modules"]]
PLAIN = {"workers": 0, "precision": "fp32", "stacked": 1, "progress": False}
WEIGHTS = ["weight_norm", "sparsity"]
OUTPUTS = ["accuracy", "cka", "agreement"]


def tiny(name, **settings):
    return {"name": name, **(plugins("adaptation")[name].facts["tiny"] or {}), **settings}


def blueprint(adaptations, seeds=(0, 1), **settings):
    grid = {"adaptation": adaptations, "seed": list(seeds)}
    child = {**SHARED, "start": "pretrain", "grid": grid}
    pretrain = {**SHARED, "architecture": ARCHITECTURE}
    return {"name": "added", "stages": {"pretrain": pretrain, "finetune": child | settings}}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("added") / "zoo"
    grow(Blueprint.read(blueprint([*map(tiny, ADDING)])), folder, **PLAIN)
    return Zoo.open(folder)


def siblings(zoo, name):
    return [m.id for m in zoo if m.parent and m.recipe.adaptation.name == name]


@pytest.fixture(params=ADDING)
def pair(zoo, request):
    return siblings(zoo, request.param)


def test_models_load_with_what_was_added(zoo, pair):
    images = torch.randn(2, 1, 8, 8)
    parent = zoo.state_dict(zoo[pair[0]].parent)
    model, weights = zoo.load(pair[0]), zoo.state_dict(pair[0])
    assert parent.keys() < weights.keys() == model.state_dict().keys()
    for name, tensor in parent.items():
        assert name.startswith("head.") or torch.equal(weights[name], tensor)
    assert model(images).shape == (2, 10)
    assert torch.equal(model(images), zoo.load(pair[0], plain=False)(images))


def test_measures_run(zoo, pair):
    measure(zoo, [*WEIGHTS, *OUTPUTS], models=pair, num_images=64, device="cpu")
    records = zoo.records()
    records = records[records["model"].isin(pair)]
    assert {*WEIGHTS, "accuracy"} <= set(records["measure"])
    assert "agreement" in set(records["measure"])
    linearized = zoo[pair[0]].recipe.adaptation.name == "linearized"
    assert ("cka" in set(records["measure"])) != linearized  # no block gives a part of its features
    assert records["value"].notna().all()


def test_siblings_are_merged(zoo, pair):
    merged = merge(zoo, "uniform_soup", models=pair)
    first, second = map(zoo.state_dict, pair)
    for name, _ in merged.load().named_parameters():  # variances of batch norms are pooled
        tensor = merged.state_dict()[name]
        mean = (first[name].double() + second[name].double()) / 2
        assert torch.allclose(tensor.double(), mean, atol=1e-6), name
    assert merged.load()(torch.randn(2, 1, 8, 8)).isfinite().all()


def test_task_vectors_of_linear_models_add_up_in_their_features(zoo):
    pair = siblings(zoo, "linearized")
    settings = {"base": f"{pair[0]}@0", "scaling_factor": 0.3}
    merged = merge(zoo, "task_arithmetic", models=pair, **settings)
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        start = zoo.load(pair[0], 0).forward_features(images)
        changes = [zoo.load(id).forward_features(images) - start for id in pair]
        expected = start + 0.3 * (changes[0] + changes[1])
        assert torch.allclose(merged.load().forward_features(images), expected, atol=1e-5)


def test_other_additions_are_another_function(zoo):
    with pytest.raises(IncompatibleWeights, match="cannot be combined: blocks"):
        merge(zoo, "uniform_soup", models=[siblings(zoo, n)[0] for n in ("adapter", "vpt")])


def test_settings_count_but_for_those_of_training(tmp_path):
    adaptations = [tiny("adapter"), tiny("adapter", scale=0.5)]
    adaptations += [tiny("vpt", dropout=rate) for rate in (0.0, 0.2)]
    grow(Blueprint.read(blueprint(adaptations, seeds=[0])), tmp_path / "zoo", **PLAIN)
    zoo = Zoo.open(tmp_path / "zoo")
    with pytest.raises(IncompatibleWeights, match=r"adaptation.scale"):
        merge(zoo, "uniform_soup", models=siblings(zoo, "adapter"))
    assert merge(zoo, "uniform_soup", models=siblings(zoo, "vpt"))


def test_a_child_is_refused(zoo, pair):
    start = {"zoo": {**SHARED, "start": {"models": pair[:1]}, "architecture": ARCHITECTURE}}
    with pytest.raises(
        InvalidConfig, match="only a stage of the same adaptation goes on with that"
    ):
        plan(
            Blueprint.read({"name": "child", "stages": start}),
            parents_in(zoo.path),
            ModelCheck(zoo.path),
        )


def test_a_child_of_a_planned_model_is_refused(tmp_path):
    values = blueprint([tiny("adapter")], seeds=[0])
    values["stages"]["next"] = {**SHARED, "start": "finetune"}
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read(values), None, ModelCheck(tmp_path))
    (problem,) = refused.value.problems
    assert str(problem).startswith("stages.next.start")


@pytest.mark.parametrize("exporter", ["timm", "hugging_face", "vit_zoo", "peft"])
def test_formats_of_plain_models_say_why_they_refuse(zoo, pair, tmp_path, exporter):
    name = zoo[pair[0]].recipe.adaptation.name
    with pytest.raises(Exception, match=f"its adaptation '{name}' added parts") as refused:
        export(zoo, exporter, out=tmp_path / "out", models=pair[:1])
    assert "safetensors" in str(refused.value)


def test_safetensors_has_all_tensors(zoo, pair, tmp_path):
    from safetensors.torch import load_file

    family = [pair[0], zoo[pair[0]].parent.id]
    file, *_ = export(zoo, "safetensors", out=tmp_path / "out", models=family)
    weights = zoo.state_dict(pair[0])
    assert load_file(file).keys() == weights.keys()
    import_zoo(tmp_path / "out", tmp_path / "again")
    (again,) = [m for m in Zoo.open(tmp_path / "again") if m.parent]
    assert again.recipe.architecture is None
    assert all(torch.equal(t, weights[n]) for n, t in again.state_dict().items())


@pytest.mark.parametrize(
    "name", ["vpt", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adapter", "tcpa"))]
)
def test_onnx_computes_the_same(zoo, tmp_path, name):
    (file,) = export(zoo, "onnx", out=tmp_path / "out", models=siblings(zoo, name)[:1])
    assert file.exists()  # the exporter has compared its outputs


def test_onnx_has_no_derivatives(zoo, tmp_path):
    with pytest.raises(InvalidInput, match="its features are a derivative, for which ONNX has"):
        export(zoo, "onnx", out=tmp_path / "out", models=siblings(zoo, "linearized")[:1])


def test_additions_with_a_dropout_are_not_stacked():
    specs = {
        rate: plan(Blueprint.read(blueprint([tiny("vpt", dropout=rate)]))).models[1]
        for rate in (0.0, 0.1)
    }
    assert stack_key(specs[0.0])
    assert stack_key(specs[0.1]) is None


def test_a_stack_gives_what_single_trainings_give(tmp_path):
    adaptations = [tiny("adapter", position="serial"), tiny("vpt", dropout=0)]
    values = Blueprint.read(blueprint(adaptations))
    weights = []
    for stacked in (1, 2):
        folder = tmp_path / str(stacked)
        grow(values, folder, **{**PLAIN, "stacked": stacked})
        zoo = Zoo.open(folder)
        weights.append({m.id: m.state_dict() for m in zoo})
    for id, single in weights[0].items():
        for name, tensor in single.items():
            assert torch.allclose(weights[1][id][name], tensor, atol=1e-3), (id, name)


def test_a_model_without_prompts_is_a_mistake_of_the_blueprint(tmp_path):
    values = blueprint(["vpt"], seeds=[0])
    swin = {"name": "mini_swin", "img_size": 16, "patch_size": 2, "in_chans": 1}
    swin |= {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    values["stages"]["pretrain"]["architecture"] = swin
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read(values), None, ModelCheck(tmp_path))
    (problem,) = refused.value.problems
    assert "takes no prompts" in str(problem)
    assert "adaptation" in str(problem)
