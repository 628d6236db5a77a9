"""timm's hub folders: what timm loads of a folder, and what is imported, are the same function."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from vitarium import Zoo
from vitarium.core.errors import CorruptFile, IncompatibleWeights, InvalidInput
from vitarium.formats.export import export
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
NAME = "vit_tiny_patch16_224"
PRETRAINED = {
    "input_size": [3, 32, 32],
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.3, 0.1],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "num_classes": 2,
}


@pytest.fixture
def saved(tmp_path):
    """A folder in timm's format: `saved(name, changes of config.json, **arguments)`."""

    def save(name=NAME, config=None, folder="theirs", classes=2, **arguments):
        torch.manual_seed(0)
        arguments = arguments or SIZES
        model = timm.create_model(name, num_classes=classes, **arguments).eval()
        (tmp_path / folder).mkdir(parents=True)
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, tmp_path / folder / "model.safetensors")
        values = {
            "architecture": name,
            "num_classes": classes,
            "model_args": arguments,
            "pretrained_cfg": PRETRAINED,
        }
        text = json.dumps(values | (config or {}))
        (tmp_path / folder / "config.json").write_text(text)
        return tmp_path / folder

    return save


def imported(source, tmp_path):
    (id,) = import_zoo(source, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    return zoo, id


def check_same(source, zoo, id):
    theirs = timm.create_model(f"local-dir:{source}", pretrained=True).eval()
    images = torch.randn(2, *zoo.spec(id).origin.architecture.config.input_size)
    with torch.no_grad():
        assert torch.equal(zoo.load(id)(images), theirs(images))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (NAME, SIZES),
        (NAME, {**SIZES, "in_chans": 1, "class_token": False, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", SIZES),
        ("beit_base_patch16_224", SIZES),
        ("eva02_tiny_patch14_224", {**SIZES, "img_size": [32, 16]}),
        ("vit_small_patch14_reg4_dinov2", SIZES),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]},
        ),
    ],
)
def test_outputs_are_those_of_timm(saved, tmp_path, name, arguments):
    source = saved(name, **arguments)
    zoo, id = imported(source, tmp_path)
    check_same(source, zoo, id)
    assert zoo.folder(id).about().num_outputs == 2


def test_what_the_description_of_the_weights_says_is_what_is_built(saved, tmp_path):
    """timm takes image size and channels from there, where the arguments are silent."""
    sizes = {key: value for key, value in SIZES.items() if key != "img_size"}
    described = {"input_size": [1, 48, 48], "fixed_input_size": True}
    arguments = {**sizes, "img_size": 48, "in_chans": 1}
    config = {"model_args": sizes, "pretrained_cfg": described}
    source = saved(NAME, config, **arguments)
    zoo, id = imported(source, tmp_path)
    check_same(source, zoo, id)
    assert zoo.spec(id).origin.architecture.config.input_size == (1, 48, 48)


def test_facts_of_the_folder_are_kept(saved, tmp_path):
    described = PRETRAINED | {"crop_mode": "squash", "interpolation": "lanczos"}
    config = {"label_names": ["cat", "dog"], "pretrained_cfg": described}
    zoo, id = imported(saved(NAME, config), tmp_path)
    assert zoo.folder(id).about().classes == ("cat", "dog")
    assert dict(zoo.spec(id).origin.settings) == {
        "data.mean": [0.4, 0.5, 0.6],
        "data.std": [0.2, 0.3, 0.1],
        "augmentation.interpolation": "lanczos",
        "preprocessing.crop_pct": 0.9,
        "preprocessing.crop_mode": "squash",
    }


def test_folders_of_timms_own_hand_are_read(saved, tmp_path):
    model = timm.create_model(NAME, num_classes=0, **SIZES).eval()
    save_for_hf(model, tmp_path / "theirs", model_args=SIZES, safe_serialization=False)
    zoo, id = imported(tmp_path / "theirs", tmp_path)
    check_same(tmp_path / "theirs", zoo, id)
    assert zoo.folder(id).about().num_outputs == 24
    assert zoo.spec(id).origin.head.name == "none"


def test_a_description_without_a_part_of_its_own_is_read(saved, tmp_path):
    """As timm wrote it before version 0.9."""
    source = saved()
    flat = {**PRETRAINED, "architecture": NAME, "labels": ["cat", "dog"], "model_args": SIZES}
    (source / "config.json").write_text(json.dumps(flat))
    zoo, id = imported(source, tmp_path)
    assert zoo.folder(id).about().classes == ("cat", "dog")
    assert zoo.spec(id).origin.settings["data.mean"] == [0.4, 0.5, 0.6]


def test_what_transformers_saves_of_a_timm_model_is_read(saved, tmp_path):
    source = saved(NAME, {"architectures": ["TimmWrapperForImageClassification"]})
    zoo, id = imported(source, tmp_path)
    weights = {f"timm_model.{name}": t for name, t in zoo.state_dict(id).items()}
    save_file(weights, source / "model.safetensors")
    assert imported(source, tmp_path)[1] == id


VIT = {"name": "vit", "img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "depth": 2}
RECIPES = [
    {"architecture": {**VIT, "reg_tokens": 2, "drop_path_rate": 0.1}},
    {"architecture": {**VIT, "in_chans": 3, "qkv_bias": False, "act_layer": "relu"}},
    {"architecture": {**VIT, "class_token": False, "global_pool": "avg"}},
    {"architecture": {**VIT, "reg_tokens": 2, "no_embed_class": True}},
    {"architecture": {**VIT, "name": "dinov2", "patch_mean": False, "swiglu": True}},
    {"architecture": VIT, "augmentation": {"name": "standard", "resize": 19}},
    {"architecture": VIT, "head": "none", "objective": "simclr", "augmentation": "simclr"},
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_exported_comes_back(lone, tmp_path, recipe):
    zoo = lone(**recipe)
    (folder,) = export(zoo, "timm", out=tmp_path / "out")
    (id,) = import_zoo(folder, tmp_path / "again")
    again, model = Zoo.open(tmp_path / "again"), zoo.ids()[0]
    origin, built = zoo.spec(model).recipe, again.spec(id).origin.architecture.config
    images = torch.randn(2, *origin.architecture.config.input_size)
    with torch.no_grad():
        assert torch.equal(again.load(id)(images), zoo.load(model)(images))
    no_settings = {"name", "swiglu", "patch_mean"}
    for name, value in recipe["architecture"].items():
        assert name in no_settings or built.overrides[name] == value, name
    head = recipe.get("head")
    assert again.folder(id).about().classes == (() if head else tuple("0123456789"))
    (once_more,) = export(again, "timm", out=tmp_path / "twice")
    assert (once_more / "config.json").read_bytes() == (folder / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vit_tiny_patch16_225"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"architecture": 3}, "architecture: 3 is a number, not text"),
        ({"model_args": []}, r"model_args: \[\] is not a valid dictionary"),
        ({"model_args": {"depth": 10**9}}, "model_args: depth: 1000000000 is not at most 1024"),
        ({"model_args": {"depth": -1}}, "model_args: .*vit_tiny_patch16_224"),
        ({"model_args": {"embed_dim": float("nan")}}, "model_args: embed_dim: nan"),
        ({"model_args": {"img_siz": 32}}, "unknown factor 'img_siz'; did you mean 'img_size'"),
        ({"model_args": {"num_heads": {}}}, "num_heads"),
        ({"num_classes": -1}, "num_classes: -1 is not greater than or equal to 0"),
        ({"label_names": {"a": 1}}, "label_names: .* is not a valid list"),
        ({"pretrained_cfg": [1]}, r"pretrained_cfg: \[1\] is not an object"),
        ({"pretrained_cfg": {"mean": "x"}}, "mean: 'x' is not a valid list"),
        ({"pretrained_cfg": {"mean": [0.5] * 2, "std": [0.5] * 2}}, "mean: has 2 numbers"),
        ({"pretrained_cfg": {"std": [0.0]}}, "std.0: 0.0 is not greater than 0"),
        ({"pretrained_cfg": {"input_size": [3, 10**12, 8]}}, "input_size.1: 1000000000000"),
        ({"pretrained_cfg": {"crop_pct": -1}}, "crop_pct: -1"),
    ],
)
def test_a_config_that_makes_no_sense_is_named_with_file_and_key(saved, tmp_path, change, message):
    source = saved(NAME, change)
    with pytest.raises(InvalidInput, match=message) as error:
        import_zoo(source, tmp_path / "zoo")
    assert str(error.value).startswith(str(source / "config.json"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "zoo").exists()


def test_weights_of_another_model_are_named(saved, tmp_path):
    source = saved(NAME, {"model_args": SIZES | {"depth": 2}})
    with pytest.raises(IncompatibleWeights, match=r"blocks\.1"):
        import_zoo(source, tmp_path / "zoo")


def test_a_folder_without_weights_is_named(saved, tmp_path):
    source = saved()
    (source / "model.safetensors").unlink()
    with pytest.raises(CorruptFile, match=r"it has none of model\.safetensors, pytorch_model\.bin"):
        import_zoo(source, tmp_path / "zoo")


def test_a_folder_of_folders_is_a_population(saved, tmp_path):
    for folder in ("hub/first", "hub/second"):
        saved(folder=folder, classes=len(folder))
    assert len(import_zoo(tmp_path / "hub", tmp_path / "zoo")) == 2
    assert set(Zoo.open(tmp_path / "zoo").models()["name"]) == {"first", "second"}


def test_names_of_more_outputs_than_there_are_are_left_out_with_a_note(saved):
    (model,) = find_models(saved(NAME, {"label_names": ["a", "b", "c"]})).models
    assert model.classes == ()
    assert model.notes == ("its 3 class names are left out: it has 2 outputs",)
