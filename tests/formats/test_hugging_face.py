"""Hugging Face's folders, both ways: logits are those of transformers' own models."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from reference.transformers_models import SIZES, VIT, randomized
from vitarium import Zoo
from vitarium.core.errors import IncompatibleWeights, InvalidInput, UntrustedFile
from vitarium.formats.export import export
from vitarium.formats.import_zoo import import_zoo


@pytest.fixture
def saved(tmp_path):
    def save(name, config, folder="theirs", **how):
        made = randomized(getattr(transformers, name)(config))
        made.save_pretrained(tmp_path / folder, **how)
        return made, tmp_path / folder

    return save


def imported(source, tmp_path):
    (id,) = import_zoo(source, tmp_path / "zoo")
    return Zoo.open(tmp_path / "zoo"), id


def same(ours, theirs):
    images = torch.randn(3, theirs.config.num_channels, 16, 16)
    with torch.no_grad():
        found = theirs(images)
        expected = found.logits if hasattr(found, "logits") else found.last_hidden_state[:, 0]
        torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"qkv_bias": False},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": "quick_gelu"},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 0.1},
        {"num_channels": 1},
        {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    ],
)
def test_a_vit_has_the_logits_that_transformers_gives(saved, tmp_path, settings):
    config = transformers.ViTConfig(num_labels=3, **VIT, **settings)
    theirs, source = saved("ViTForImageClassification", config)
    zoo, id = imported(source, tmp_path)
    same(zoo.load(id), theirs)


@pytest.mark.parametrize("settings", [{}, {"use_swiglu_ffn": True}, {"qkv_bias": False}])
@pytest.mark.parametrize("kind", ["Dinov2ForImageClassification", "Dinov2Model"])
def test_dinov2_has_the_outputs_that_transformers_gives(saved, tmp_path, kind, settings):
    labels = {"num_labels": 3} if kind == "Dinov2ForImageClassification" else {}
    theirs, source = saved(kind, transformers.Dinov2Config(**SIZES, **settings, **labels))
    zoo, id = imported(source, tmp_path)
    same(zoo.load(id), theirs)


def test_the_norms_eps_is_the_models(saved, tmp_path):
    config = transformers.ViTConfig(num_labels=3, **VIT)
    assert config.layer_norm_eps == 1e-12
    _, source = saved("ViTForImageClassification", config)
    zoo, id = imported(source, tmp_path)
    norms = [m for m in zoo.load(id).modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-12}


def test_a_bare_vit_gives_its_class_token(saved, tmp_path):
    theirs, source = saved("ViTModel", transformers.ViTConfig(**VIT))
    zoo, id = imported(source, tmp_path)
    same(zoo.load(id), theirs)
    assert not any("pooler" in name for name in zoo.state_dict(id))


def test_classes_are_those_of_id2label_in_the_order_of_the_labels(saved, tmp_path):
    names = {n: f"class {n}" for n in range(11)}
    config = transformers.ViTConfig(id2label=names, **VIT)
    _, source = saved("ViTForImageClassification", config)
    zoo, id = imported(source, tmp_path)
    assert zoo.folder(id).about().classes == tuple(names.values())


def test_a_folder_whose_weights_do_not_fit_stops_the_import_of_all_before_any(saved, tmp_path):
    _, source = saved("ViTForImageClassification", transformers.ViTConfig(num_labels=3, **VIT))
    for name in ("a", "b"):
        shutil.copytree(source, tmp_path / "both" / name)
    file = tmp_path / "both" / "b" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] + 8}))
    with pytest.raises(IncompatibleWeights, match=r"b \(.*config.json\), epoch 0: .*mlp.fc1"):
        import_zoo(tmp_path / "both", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_shards_and_pickles_are_read_as_the_one_file_is(saved, tmp_path):
    config = transformers.ViTConfig(num_labels=3, **VIT)
    theirs, source = saved("ViTForImageClassification", config, max_shard_size="10KB")
    assert (source / "model.safetensors.index.json").exists()
    zoo, id = imported(source, tmp_path)
    same(zoo.load(id), theirs)
    whole = {k: v for file in source.glob("*.safetensors") for k, v in load_file(file).items()}
    for file in source.glob("model*"):
        file.unlink()
    torch.save(whole, source / "pytorch_model.bin")
    assert imported(source, tmp_path)[1] == id


def test_the_names_that_modules_have_in_transformers_5_are_read_too(saved, tmp_path):
    theirs, source = saved("ViTForImageClassification", transformers.ViTConfig(num_labels=3, **VIT))
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert set(state) != set(load_file(source / "model.safetensors"))
    save_file(state, source / "model.safetensors")
    zoo, id = imported(source, tmp_path)
    same(zoo.load(id), theirs)


def test_a_folder_of_folders_is_a_population(saved, tmp_path):
    for name in ("one", "two"):
        config = transformers.ViTConfig(num_labels=len(name), **VIT)
        saved("ViTForImageClassification", config, folder=f"hub/{name}")
    (tmp_path / "hub" / "other").mkdir()
    (tmp_path / "hub" / "other" / "config.json").write_text('{"architectures": ["Bert"]}')
    assert len(import_zoo(tmp_path / "hub", tmp_path / "zoo")) == 2
    assert set(Zoo.open(tmp_path / "zoo").models()["name"]) == {"one", "two"}


def test_links_of_the_hubs_cache_are_followed_and_no_others(saved, tmp_path):
    config = transformers.ViTConfig(num_labels=3, **VIT)
    theirs, source = saved("ViTForImageClassification", config)
    repository = tmp_path / "models--me--mine"
    cached = repository / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in source.iterdir():
        file.rename(repository / "blobs" / file.stem)
        (cached / file.name).symlink_to(f"../../blobs/{file.stem}")
    zoo, id = imported(cached, tmp_path)
    same(zoo.load(id), theirs)
    (repository / "blobs").rename(tmp_path / "elsewhere")
    (cached / "model.safetensors").unlink()
    (cached / "model.safetensors").symlink_to(tmp_path / "elsewhere" / "model")
    (cached / "config.json").unlink()
    (cached / "config.json").write_text((tmp_path / "elsewhere" / "config").read_text())
    with pytest.raises(UntrustedFile, match="leads out of"):
        import_zoo(cached, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; known are gelu"),
        ({"image_size": [16, 32]}, "have to be square"),
        ({"hidden_size": None}, "hidden_size: None is not a valid integer"),
        ({"hidden_size": 25}, "embed_dim 25 is not divisible by num_heads 2"),
        ({"architectures": ["BertModel"]}, "is of a BertModel; what can be imported: Beit"),
        ({"architectures": ["CLIPModel"]}, "its image tower can be imported: save it"),
    ],
)
def test_what_has_no_counterpart_is_refused(saved, tmp_path, change, message):
    _, source = saved("ViTForImageClassification", transformers.ViTConfig(**VIT))
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InvalidInput, match=message):
        import_zoo(source, tmp_path / "zoo", importer="hugging_face")
    assert not (tmp_path / "zoo").exists()


def test_weights_of_another_model_are_named(saved, tmp_path):
    _, source = saved("ViTForImageClassification", transformers.ViTConfig(**VIT))
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(IncompatibleWeights, match=r"blocks\.2"):
        import_zoo(source, tmp_path / "zoo")


VIT_HERE = {"name": "vit", "img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2}
EXPORTED = [
    VIT_HERE,
    {**VIT_HERE, "in_chans": 1, "mlp_ratio": 5 / 3, "qkv_bias": False},
    {**VIT_HERE, "norm_eps": 1e-3, "act_layer": "gelu_tanh"},
    {**VIT_HERE, "act_layer": "quick_gelu", "proj_drop_rate": 0.1},
    {**VIT_HERE, "name": "timm", "model": "vit_tiny_patch16_224", "num_heads": 3},
]


@pytest.mark.parametrize("architecture", EXPORTED)
def test_transformers_gives_the_logits_of_an_exported_model(lone, tmp_path, architecture):
    zoo = lone(architecture=architecture)
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    assert isinstance(theirs, transformers.ViTForImageClassification)
    assert [theirs.config.id2label[i] for i in range(10)] == list("0123456789")
    same(zoo.load(zoo.ids()[0]), theirs)


def test_a_model_without_a_head_becomes_a_vit_model(lone, tmp_path):
    zoo = lone(architecture=VIT_HERE, head="none", objective="simclr", augmentation="simclr")
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out")
    theirs = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    same(zoo.load(zoo.ids()[0]), theirs)


def test_what_is_exported_can_be_imported_with_the_same_bits(lone, tmp_path):
    zoo = lone(architecture=VIT_HERE)
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out")
    (id,) = import_zoo(folder, tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    weights = zoo.state_dict(zoo.ids()[0])
    assert weights.keys() == again.state_dict(id).keys()
    assert all(torch.equal(weights[n], t) for n, t in again.state_dict(id).items())
    assert again.folder(id).about().classes == tuple("0123456789")
    (once_more,) = export(again, "hugging_face", out=tmp_path / "twice")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        assert (once_more / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_prepared_as_they_were_for_scoring(lone, tmp_path, channels):
    from vitarium.data.base import Dataset, Split
    from vitarium.data.loader import Batches

    augmentation = {"name": "standard", "resize": 20, "interpolation": "bicubic"}
    zoo = lone(architecture={**VIT_HERE, "in_chans": channels}, augmentation=augmentation)
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    size = (24, 30, 3) if channels == 3 else (24, 30)
    pixels = np.random.default_rng(0).integers(64, 192, size, dtype=np.uint8)
    theirs = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    image = torch.from_numpy(pixels).view(24, 30, -1).permute(2, 0, 1)[None]
    split = Split(image, torch.zeros(1, dtype=torch.long))
    data = Dataset("x", ("0",), split, split, split, (0.305,), (0.376,))
    recipe = zoo.spec(zoo.ids()[0]).recipe
    size = recipe.architecture.config.input_size
    batches = Batches(data, recipe.augmentation(size, 1), size, 1, seed=0)
    ours = next(iter(batches.score("test"))).images
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().max() < 2 / 255 / 0.376  # theirs rounds to whole levels between


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"architecture": VIT_HERE, "head": {"name": "mlp", "hidden_dim": 4}}, "several layers"),
        (
            {"architecture": {**VIT_HERE, "class_token": False, "global_pool": "avg"}},
            "global_pool 'avg', and there the class token alone",
        ),
        ({"architecture": {**VIT_HERE, "reg_tokens": 2}}, "it has reg_token"),
        (
            {"architecture": {**VIT_HERE, "name": "dinov2", "patch_mean": False}},
            "its head sees the class token alone, and there the mean patch beside it",
        ),
        (
            {"architecture": {**VIT_HERE, "name": "dinov2", "reg_tokens": 1}},
            "its registers have positions, and there they have none",
        ),
        (
            {"architecture": {**VIT_HERE, "no_embed_class": True}},
            "its class token has no position, and there it has one",
        ),
        (
            {"architecture": {"name": "timm", "model": "cait_xxs24_224", "depth": 1}},
            "it is a Cait, none of ViT, DeiT, DINOv2, .*SigLIP's image towers; exporter='timm' and ",
        ),
    ],
)
def test_a_model_that_is_no_vit_of_theirs_is_refused_with_the_reason(
    lone, tmp_path, recipe, message
):
    zoo = lone(**recipe)
    with pytest.raises(InvalidInput, match=message):
        export(zoo, "hugging_face", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
