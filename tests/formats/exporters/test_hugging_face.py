"""What was imported from transformers is given back: families, preparation of images, labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from reference.transformers_models import SIZES, SWIN, VIT, randomized
from vitarium import Zoo
from vitarium.core.errors import InvalidInput
from vitarium.data.preprocessing import preprocessing_of
from vitarium.formats._transformers import families
from vitarium.formats.export import export
from vitarium.formats.foreign_zoo import find_models
from vitarium.formats.import_zoo import import_zoo

FAMILIES = {
    "DeiTForImageClassification": [VIT, {**VIT, "num_channels": 1, "hidden_act": "relu"}],
    "DeiTModel": [VIT],
    "DeiTForImageClassificationWithTeacher": [VIT, {**VIT, "layer_norm_eps": 0.1}],
    "Dinov2ForImageClassification": [
        SIZES,
        {**SIZES, "use_swiglu_ffn": True, "mlp_ratio": 3},
        {**SIZES, "qkv_bias": False, "layerscale_value": 0.5},
        {**SIZES, "num_labels": 0},
    ],
    "Dinov2Model": [SIZES],
    "Dinov2WithRegistersForImageClassification": [
        SIZES,
        {**SIZES, "num_register_tokens": 2, "use_swiglu_ffn": True},
    ],
    "Dinov2WithRegistersModel": [SIZES],
    "BeitForImageClassification": [
        VIT,
        {**VIT, "use_mean_pooling": False, "layer_norm_eps": 0.1, "drop_path_rate": 0.2},
        {**VIT, "layer_scale_init_value": 0.0},
        {**VIT, "use_absolute_position_embeddings": True},
        {**VIT, "use_relative_position_bias": True},
        {**VIT, "use_shared_relative_position_bias": True},
    ],
    "BeitModel": [VIT, {**VIT, "use_mean_pooling": False}],
    "SwinForImageClassification": [
        SWIN,
        {**SWIN, "qkv_bias": False, "mlp_ratio": 2.0, "drop_path_rate": 0.0},
        {**SWIN, "image_size": 40, "depths": [1, 2, 1], "num_heads": [1, 2, 3], "window_size": 5},
    ],
    "SwinModel": [SWIN],
    "IJepaForImageClassification": [VIT, {**VIT, "layer_norm_eps": 0.1, "qkv_bias": False}],
    "DINOv3ViTModel": [
        VIT,
        {**VIT, "num_register_tokens": 3, "rope_theta": 50.0, "drop_path_rate": 0.1},
        {**VIT, "use_gated_mlp": True, "hidden_act": "silu"},
        {**VIT, "query_bias": False, "value_bias": False, "layer_norm_eps": 0.1},
    ],
    "CLIPVisionModel": [VIT, {**VIT, "hidden_act": "gelu", "layer_norm_eps": 0.1}],
    "CLIPVisionModelWithProjection": [{**VIT, "projection_dim": 7}],
    "SiglipVisionModel": [VIT, {**VIT, "layer_norm_eps": 0.1, "attention_dropout": 0.1}],
    "SiglipForImageClassification": [{"vision_config": VIT}],
}


def saved(name, settings, folder):
    labels = {"id2label": {0: "cat", 1: "dog", 2: "7"}} if "Classification" in name else {}
    labels = {} if "num_labels" in settings else labels
    model_class = getattr(transformers, name)
    model = randomized(model_class(model_class.config_class(**settings, **labels)))
    model.save_pretrained(folder)
    channels = settings.get("num_channels", 3)
    content = {"size": {"shortest_edge": 20}, "resample": 3}
    content |= {"image_mean": [0.5] * channels, "image_std": [0.25] * channels}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return model


def outputs(model, images):
    with torch.no_grad():
        found = model(images)
    pooled = "pooler_output" if type(model).__name__.startswith("Siglip") else "last_hidden_state"
    return next(found[name] for name in ("logits", "image_embeds", pooled) if name in found)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_given_back(tmp_path, name):
    for number, settings in enumerate(FAMILIES[name]):
        source, again = tmp_path / f"{number}", tmp_path / f"out{number}"
        original = saved(name, settings, source)
        (id,) = import_zoo(source, tmp_path / f"zoo{number}")
        zoo = Zoo.open(tmp_path / f"zoo{number}")
        (folder,) = export(zoo, "hugging_face", out=again)
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == [name]
        loaded, report = getattr(transformers, name).from_pretrained(
            folder, output_loading_info=True
        )
        missing = {key for key in report["missing_keys"] if ".pooler.dense." not in f".{key}"}
        assert not missing
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        sides = zoo.spec(id).origin.architecture.config.input_size
        images = torch.randn(3, *sides, generator=torch.Generator().manual_seed(1))
        expected = outputs(original, images)
        torch.testing.assert_close(outputs(loaded.eval(), images), expected, atol=1e-5, rtol=1e-5)
        if "Classification" in name:
            assert loaded.config.id2label == original.config.id2label
        (first,), (second,) = find_models(source).models, find_models(folder).models
        assert second.settings == first.settings
        assert second.classes == first.classes
        assert second.architecture == first.architecture
        ours, imported = zoo.state_dict(id), second.epochs[0].load()
        assert ours.keys() == imported.keys()
        assert all(torch.equal(ours[key], imported[key]) for key in ours)


STATED = {"size": {"shortest_edge": 20}, "resample": 2, "image_mean": [0.3] * 3}
STATED |= {"image_std": [0.2, 0.3, 0.7]}
PREPARED = {
    "a shorter side": {},
    "no crop": {"do_center_crop": False},
    "no crop of a square": {"do_center_crop": False, "size": {"height": 18, "width": 18}},
    "no crop, no resizing": {"do_center_crop": False, "do_resize": False},
    "a longest side": {"size": {"shortest_edge": 20, "longest_edge": 30}},
    "a bound": {"size": {"max_height": 20, "max_width": 30}},
    "a crop of another size": {"do_center_crop": True, "crop_size": {"height": 18, "width": 12}},
    "squashed": {"size": {"height": 16, "width": 18}},
    "a share": {"size": {"shortest_edge": 16}, "crop_pct": 0.8},
    "another scale": {"rescale_factor": 0.00784},
    "levels": {"do_rescale": False, "image_mean": [123.675] * 3, "image_std": [58.395] * 3},
    "no normalization": {"do_normalize": False},
    "no normalization of levels": {"do_normalize": False, "do_rescale": False},
    "no resizing": {"do_resize": False},
    "no resizing, squashed": {"do_resize": False, "size": {"height": 16, "width": 18}},
    "no size": {"do_resize": False, "size": None},
    **{f"resample {number}": {"resample": number} for number in range(6)},
}
NORMALIZED_BY_NOTHING = {"do_normalize": True, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}


@pytest.fixture
def vit(tmp_path):
    """A ViT's folder whose images are prepared so."""

    def write(content):
        folder = tmp_path / "source"
        saved("ViTForImageClassification", VIT, folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
        return folder

    return write


def given_back(source, tmp_path, **settings):
    import_zoo(source, tmp_path / "zoo")
    zoo = Zoo.open(tmp_path / "zoo")
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out", **settings)
    return folder


@pytest.mark.parametrize("name", PREPARED)
def test_how_images_are_prepared_is_given_back(vit, tmp_path, name):
    content = STATED | PREPARED[name]
    source = vit(content)
    folder = given_back(source, tmp_path)
    (first,), (second,) = find_models(source).models, find_models(folder).models
    assert second.settings == first.settings
    expected = {key: value for key, value in content.items() if value is not None}
    if content.get("do_normalize") is False:
        expected |= NORMALIZED_BY_NOTHING
    written = json.loads((folder / "preprocessor_config.json").read_text())
    means = {
        key: pytest.approx(expected.pop(key), rel=1e-15) for key in ("image_mean", "image_std")
    }
    assert {key: written[key] for key in expected} == expected
    assert {key: written[key] for key in means} == means


@pytest.mark.parametrize(
    "content",
    [
        {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16}},
        {"size": {"height": 16, "width": 16}, "do_rescale": False, "image_mean": [127.5] * 3},
        {"size": {"height": 16, "width": 16}, "rescale_factor": 1 / 127.5},
        {"size": {"height": 16, "width": 16}, "do_resize": False},
    ],
)
def test_transformers_prepares_images_as_before(vit, tmp_path, content):
    kind = {"image_processor_type": "BitImageProcessor", "do_convert_rgb": True}
    content = STATED | {"do_center_crop": False} | kind | content
    content["crop_size"] = {"height": 16, "width": 16}
    source = vit(content)
    folder = given_back(source, tmp_path)
    side = 16 if content.get("do_resize") is False else 24
    levels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    before, after = (
        transformers.AutoImageProcessor.from_pretrained(where)(
            Image.fromarray(levels), return_tensors="pt"
        )["pixel_values"]
        for where in (source, folder)
    )
    assert before.shape == after.shape == (1, 3, 16, 16)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_an_image_that_is_not_resized_is_not_resized_for_scoring(vit, tmp_path):
    (id,) = import_zoo(vit(STATED | {"do_resize": False}), tmp_path / "zoo")
    assert preprocessing_of(Zoo.open(tmp_path / "zoo").spec(id)).resize is None


def test_a_crop_that_no_image_processor_has_is_refused(tmp_path):
    folder = tmp_path / "timm"
    folder.mkdir()
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 3, "model_args": sizes}
    images = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 16, 16]}
    config["pretrained_cfg"] = {**images, "crop_mode": "border"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidInput, match="crop_mode=border; what can be applied is center"):
        given_back(folder, tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_would_be_another_function_is_left_out(vit, tmp_path, monkeypatch):
    import_zoo(vit(STATED), tmp_path / "zoo")
    changed = replace(families.FAMILIES["ViTForImageClassification"], convert=_doubled)
    zoo = Zoo.open(tmp_path / "zoo")
    monkeypatch.setitem(families.FAMILIES, "ViTForImageClassification", changed)
    with pytest.raises(InvalidInput, match="other outputs than the zoo's model"):
        export(zoo, "hugging_face", out=tmp_path / "out")
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out", check=False)
    assert (folder / "model.safetensors").is_file()


def _doubled(weights):
    return {name: 2 * tensor for name, tensor in weights.items()}


SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
OF_TIMM = {
    "vit_small_patch14_reg4_dinov2": ({}, "its head sees the class token alone"),
    "beitv2_base_patch16_224": ({}, "BeitForImageClassification"),
    "beit_base_patch16_224": ({"qkv_bias": False}, "its attention has no biases"),
    "vit_tiny_patch16_224": (
        {"img_size": [16, 32]},
        "no image processor of transformers resizes so",
    ),
    "swin_tiny_patch4_window7_224": (
        {"depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
        "its windows are 2, 4 wide",
    ),
    "eva02_tiny_patch14_224": ({}, "it is a Eva, none of ViT"),
    "vit_base_patch16_siglip_224": ({}, "it has a head, and SiglipVisionModel has none"),
    "vit_base_patch16_siglip_gap_224": ({"fc_norm": False}, "SiglipForImageClassification"),
    "vit_small_patch16_dinov3": ({}, "it has a head, and DINOv3ViTModel has none"),
    "vit_base_patch16_clip_224": ({}, "its head has a bias that is not 0"),
    "vit_medium_patch16_clip_224": ({"qkv_bias": False}, "its attention has no biases"),
}


@pytest.mark.parametrize("name", OF_TIMM)
def test_models_of_timm_become_their_counterparts_or_are_refused(lone, tmp_path, name):
    overrides, expected = OF_TIMM[name]
    sizes = {
        key: value for key, value in SMALL.items() if "depths" not in overrides or key != "depth"
    }
    zoo = lone(architecture={"name": "timm", "model": name, **sizes, **overrides})
    if " " in expected:
        with pytest.raises(InvalidInput, match=f"{expected}.*; exporter='(timm|safetensors)'"):
            export(zoo, "hugging_face", out=tmp_path / "out")
        return
    (folder,) = export(zoo, "hugging_face", out=tmp_path / "out")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [expected]
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        ours = zoo.load(zoo.ids()[0])(images)
    torch.testing.assert_close(outputs(model, images), ours, atol=1e-5, rtol=1e-5)
