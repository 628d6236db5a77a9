"""Folders for timm: what it builds and loads has the bits of the zoo's model."""

import json

import pytest
import timm
import timm.data
import torch
import transformers

from reference.transformers_models import VIT as VIT_OF_TRANSFORMERS
from vitarium import Zoo, merge
from vitarium.core.errors import InvalidInput
from vitarium.formats.export import export
from vitarium.formats.import_zoo import import_zoo

VIT = {"name": "vit", "img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "depth": 2}
TIMM = {"name": "timm", "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
ARCHITECTURES = {
    "vit": VIT,
    "color": {**VIT, "in_chans": 3},
    "without class token": {**VIT, "class_token": False, "global_pool": "avg"},
    "average": {**VIT, "global_pool": "avg"},
    "registers": {**VIT, "reg_tokens": 2},
    "no bias": {**VIT, "qkv_bias": False, "mlp_ratio": 1.5, "num_heads": 2},
    "dropout": {**VIT, "drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2},
    "activation": {**VIT, "act_layer": "gelu_tanh"},
    "dinov2": {**VIT, "name": "dinov2", "patch_mean": False, "init_values": 0.5},
    "dinov2 with gates": {**VIT, "name": "dinov2", "patch_mean": False, "swiglu": True},
    "timm": {**TIMM, "model": "vit_small_patch16_224", "num_heads": 2},
    "timm in gray": {**TIMM, "model": "vit_tiny_patch16_224", "num_heads": 2, "in_chans": 1},
    "timm oblong": {
        **TIMM,
        "model": "vit_tiny_patch16_224",
        "num_heads": 2,
        "img_size": [32, 16],
        "in_chans": 1,
    },
    "layer scale": {**TIMM, "model": "deit3_small_patch16_224", "num_heads": 2},
}


def loaded(folder):
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_timm_gives_the_same_bits(lone, tmp_path, name):
    zoo = lone(architecture=ARCHITECTURES[name])
    (folder,) = export(zoo, "timm", out=tmp_path / "out", check=False)
    id = zoo.ids()[0]
    size = zoo.spec(id).recipe.architecture.config.input_size
    images, theirs = torch.randn(2, *size), loaded(folder)
    assert torch.equal(theirs(images), zoo.load(id)(images))
    assert theirs.pretrained_cfg["input_size"] == size
    assert theirs.pretrained_cfg["label_names"] == list("0123456789")
    rates = [m.p for m in zoo.load(id).modules() if isinstance(m, torch.nn.Dropout)]
    assert [m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)] == rates


def test_what_is_exported_is_what_timm_saves_too(lone, tmp_path):
    from timm.models import save_for_hf

    zoo = lone(architecture=VIT)
    (folder,) = export(zoo, "timm", out=tmp_path / "out")
    save_for_hf(loaded(folder), tmp_path / "again", safe_serialization=True)
    ours = json.loads((folder / "config.json").read_text())
    theirs = json.loads((tmp_path / "again" / "config.json").read_text())
    assert ours["architecture"] == theirs["architecture"]
    assert theirs["model_args"].items() <= {**ours["model_args"], **theirs["model_args"]}.items()
    for key in ("mean", "std", "crop_pct", "interpolation", "input_size", "first_conv"):
        assert ours["pretrained_cfg"][key] == theirs["pretrained_cfg"][key], key


@pytest.mark.parametrize("resize", [16, 18, 19, 23, 31, 57])
def test_timms_transform_resizes_and_crops_as_scoring_does(lone, tmp_path, resize):
    zoo = lone(
        architecture=VIT,
        augmentation={"name": "standard", "resize": resize, "interpolation": "bicubic"},
    )
    (folder,) = export(zoo, "timm", out=tmp_path / "out")
    config = timm.data.resolve_model_data_config(loaded(folder))
    steps = timm.data.create_transform(**config, is_training=False).transforms
    assert steps[0].size == resize
    assert steps[0].interpolation.value == "bicubic"
    assert tuple(steps[1].size) == (16, 16)
    assert steps[-1].mean.tolist() == pytest.approx([0.305])
    assert steps[-1].std.tolist() == pytest.approx([0.376])


def test_a_model_without_a_head_has_none_there(lone, tmp_path):
    zoo = lone(architecture=VIT, head="none", objective="simclr", augmentation="simclr")
    (folder,) = export(zoo, "timm", out=tmp_path / "out")
    assert loaded(folder).num_classes == 0
    assert loaded(folder)(torch.randn(2, 1, 16, 16)).shape == (2, 24)


def test_an_earlier_epoch_and_what_an_operator_made_are_exported(zoo, tmp_path):
    ids = zoo.models().query("stage == 'pretrain'")["id"].tolist()
    soup = merge(zoo, "uniform_soup", models=ids).id
    folders = export(zoo, "timm", out=tmp_path / "out", models=[f"{ids[0]}@0", soup])
    assert [folder.name for folder in folders] == [f"{ids[0]}-epoch-0000", f"{soup}-epoch-0000"]
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded(folders[0])(images), zoo.load(ids[0], epoch=0)(images))
    assert torch.equal(loaded(folders[1])(images), zoo.load(soup)(images))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"architecture": VIT, "head": {"name": "mlp", "hidden_dim": 4}},
            "its head is 'mlp', and timm's is one layer; exporter='safetensors' and exporter='onnx' take it",
        ),
        ({"architecture": {**VIT, "norm_eps": 1e-5}}, "norm_eps is 1e-05"),
        ({"architecture": {**VIT, "name": "dinov2"}}, "sees the mean patch too"),
    ],
)
def test_what_timm_cannot_build_is_refused(lone, tmp_path, recipe, message):
    with pytest.raises(InvalidInput, match=message):
        export(lone(**recipe), "timm", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_came_as_tensors_is_refused(zoo, tmp_path):
    *_, table = export(zoo, "safetensors", out=tmp_path / "files")
    text = table.read_text().splitlines()
    rows = [f"{line.split(',')[0]},none" for line in text[1:]]
    table.write_text("\n".join(["file,architecture", *rows, ""]))
    import_zoo(tmp_path / "files", tmp_path / "again")
    with pytest.raises(InvalidInput, match="imported as tensors"):
        export(Zoo.open(tmp_path / "again"), "timm", out=tmp_path / "out")


def test_an_unknown_normalisation_has_to_be_said(zoo, tmp_path):
    export(zoo, "safetensors", out=tmp_path / "files")
    import_zoo(tmp_path / "files", tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    with pytest.raises(InvalidInput, match=r"nothing is known .* mean="):
        export(again, "timm", out=tmp_path / "out")
    with pytest.raises(InvalidInput, match="images of 1 channels, but the normalization has 2"):
        export(again, "timm", out=tmp_path / "out", mean=[0.1, 0.2], std=[1.0, 1.0])
    folder, *_ = export(again, "timm", out=tmp_path / "out", mean=[0.25], std=[0.5])
    assert loaded(folder).pretrained_cfg["mean"] == [0.25]


def of_transformers(folder, **images):
    """A zoo with a ViT whose images are prepared so."""
    config = transformers.ViTConfig(**VIT_OF_TRANSFORMERS, layer_norm_eps=1e-6, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **images}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    import_zoo(folder, folder.with_name("zoo"))
    return Zoo.open(folder.with_name("zoo"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"size": {"height": 16, "width": 18}}, r"squashed to \[16, 18\] pixels, and timm has one"),
        ({"size": {"max_height": 16, "max_width": 16}}, r"preprocessing\.size\.max_height=16"),
        (
            {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 18},
            r"preprocessing\.crop_size=\[18, 18\]",
        ),
    ],
)
def test_what_timm_does_to_no_image_is_refused_by_the_setting(tmp_path, images, message):
    with pytest.raises(InvalidInput, match=message):
        export(of_transformers(tmp_path / "source", **images), "timm", out=tmp_path / "out")


def test_a_rectangle_is_covered_as_before(lone, tmp_path):
    zoo = lone(architecture=ARCHITECTURES["timm oblong"])
    (folder,) = export(zoo, "timm", out=tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"crop_pct": 0.8, "crop_mode": "center"}
    (folder / "config.json").write_text(json.dumps(config))
    import_zoo(folder, tmp_path / "again")
    (folder,) = export(Zoo.open(tmp_path / "again"), "timm", out=tmp_path / "back")
    settings = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (settings["crop_pct"], settings["crop_mode"]) == (0.8, "center")
