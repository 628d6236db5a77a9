"""LoRA for peft: what it loads computes what the zoo's models do, and merges to their weights."""

import json
import warnings

import peft
import pytest
import timm
import torch
from safetensors.torch import load_file

from vitarium import Blueprint, Zoo, grow, import_zoo, merge
from vitarium.core.errors import InvalidInput
from vitarium.formats.export import export

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
LORAS = {
    "q and v": {"name": "lora", "rank": 2, "alpha": 3.0},
    "all of qkv": {"name": "lora", "rank": 1, "alpha": 2.5, "matrices": ["q", "k", "v"]},
    "several ranks": {"name": "lora", "rank": 2, "matrices": ["k", "v", "proj", "fc1", "fc2"]},
    "one block": {"name": "lora", "rank": 3, "matrices": ["q"], "blocks": [-1]},
    "explora": {"name": "explora", "rank": 2, "class_token": False},
}
REFUSED = {
    "explora": ({"name": "explora", "rank": 2}, "its cls_token learned, which stands in no layer"),
    "kronecker": ("kronecker", "its adaptation is 'kronecker', which is no LoRA"),
    "full": ("full", "its adaptation is 'full', which is no LoRA; .*timm.* take it"),
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A zoo, and by what is written above the ids of its models."""
    adaptations = {**LORAS, **{f"refused {k}": value for k, (value, _) in REFUSED.items()}}
    shared = {"data": "digits", "batch_size": 256, "optimizer": {"name": "adamw", "lr": 0.01}}
    finetune = {
        **shared,
        "start": "pretrain",
        "epochs": 2,
        "grid": {"adaptation": list(adaptations.values())},
    }
    in_bf16 = {
        **shared,
        "start": "pretrain",
        "epochs": 1,
        "checkpoint_precision": "bf16",
        "adaptation": LORAS["q and v"],
    }
    stages = {
        "pretrain": {**shared, "architecture": ARCHITECTURE, "epochs": 1},
        "finetune": finetune,
        "in_bf16": in_bf16,
    }
    zoo = Zoo.create(tmp_path_factory.mktemp("grown") / "zoo")
    grow(
        Blueprint.read({"name": "loras", "stages": stages}),
        zoo.path,
        stacked=1,
        precision="fp32",
        progress=False,
    )
    ids = {}
    for id in zoo.ids():
        spec = zoo.spec(id)
        adaptation = spec.recipe.adaptation.factors()
        for name, values in adaptations.items():
            values = {"name": values} if isinstance(values, str) else values
            if (
                spec.stage == "finetune"
                and adaptation.items() >= values.items()
                and (name != "refused explora" or adaptation["class_token"])
            ):
                ids[name] = id
        ids |= {spec.stage: id} if spec.stage != "finetune" else {}
    return zoo, ids


def loaded(folder):
    """The base as timm builds it, with the adapter as peft loads it."""
    config = json.loads((folder / "adapter_config.json").read_text())
    base = folder.parent / config["base_model_name_or_path"]
    with warnings.catch_warnings(record=True) as caught:
        model = timm.create_model(f"local-dir:{base}", pretrained=True, num_classes=10)
        adapted = peft.PeftModel.from_pretrained(model, folder).eval()
    assert not [w for w in caught if "missing" in str(w.message)], "keys are missing"
    return adapted


def exported(zoo, id, out):
    return next(
        path for path in export(zoo, "peft", out=out, models=[id]) if path.name.startswith(id)
    )


@pytest.mark.parametrize("name", [*LORAS, "in_bf16"])
def test_peft_computes_the_same_and_merges_to_the_same_weights(grown, tmp_path, name):
    zoo, ids = grown
    model, plain = loaded(exported(zoo, ids[name], tmp_path / "out")), zoo.state_dict(ids[name])
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (model(images) - zoo.load(ids[name])(images)).abs().max() < 1e-5
    merged = model.merge_and_unload().state_dict()
    assert merged.keys() == plain.keys()
    assert max((merged[k] - plain[k].float()).abs().max() for k in plain) < 1e-6
    parent = zoo.state_dict(zoo.spec(ids[name]).parent)
    assert any((plain[k] - parent[k]).abs().max() > 1e-3 for k in plain if "qkv" in k)


@pytest.mark.parametrize("name", LORAS)
def test_names_and_configuration_are_those_that_peft_saves(grown, tmp_path, name):
    zoo, ids = grown
    folder = exported(zoo, ids[name], tmp_path / "out")
    loaded(folder).save_pretrained(tmp_path / "again")
    ours, theirs = (
        load_file(f / "adapter_model.safetensors") for f in (folder, tmp_path / "again")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    config, again = (
        json.loads((f / "adapter_config.json").read_text()) for f in (folder, tmp_path / "again")
    )
    for key in ("target_modules", "modules_to_save"):
        config[key], again[key] = sorted(config[key]), sorted(again[key])
    assert config.items() <= again.items()


def test_the_base_is_the_parent_without_its_head(grown, tmp_path):
    zoo, ids = grown
    models = [ids[name] for name in LORAS]
    paths = export(zoo, "peft", out=tmp_path / "out", models=models)
    (base,) = [path for path in paths if path.name.startswith("base-")]
    weights, parent = load_file(base / "model.safetensors"), zoo.state_dict(ids["pretrain"])
    assert weights.keys() == {name for name in parent if not name.startswith("head.")}
    assert all(torch.equal(tensor, parent[name]) for name, tensor in weights.items())
    assert len(paths) == 1 + len(models)


def test_what_the_folder_says_to_run_runs(grown, tmp_path, monkeypatch):
    zoo, ids = grown
    folder = exported(zoo, ids["q and v"], tmp_path / "out")
    _, code, _ = (folder / "README.md").read_text().split("```")
    monkeypatch.chdir(tmp_path / "out")
    exec(code.removeprefix("python"), names := {})
    plain = zoo.state_dict(ids["q and v"])["blocks.0.attn.qkv.weight"]
    assert (names["plain"].blocks[0].attn.qkv.weight - plain).abs().max() < 1e-6


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_with_the_reason(grown, tmp_path, name):
    zoo, ids = grown
    with pytest.raises(InvalidInput, match=REFUSED[name][1]):
        export(zoo, "peft", out=tmp_path / "out", models=[ids[f"refused {name}"]])
    assert not (tmp_path / "out").exists()


def test_what_was_merged_of_loras_is_none(grown, tmp_path):
    zoo, ids = grown
    soup = merge(zoo, "uniform_soup", models=[ids["q and v"], ids["all of qkv"]]).id
    with pytest.raises(InvalidInput, match="no factors of LoRA: it was merged"):
        export(zoo, "peft", out=tmp_path / "out", models=[soup])


@pytest.mark.parametrize("name", LORAS)
def test_importing_gives_back_the_weights_below_the_same_parent(grown, tmp_path, name):
    zoo, ids = grown
    parent = zoo.spec(ids[name]).parent
    folder = exported(zoo, ids[name], tmp_path / "out")
    (child,) = import_zoo(folder, zoo, base=parent)
    again, weights = zoo.state_dict(child), zoo.state_dict(ids[name])
    assert max((again[k] - weights[k]).abs().max() for k in weights) < 1e-6
    assert zoo.spec(child).parent == parent
