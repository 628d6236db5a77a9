"""Every family of transformers with a counterpart in timm: outputs are those of transformers."""

import pytest
import torch
import transformers

from reference.transformers_models import SIZES, SWIN, VIT, randomized
from vitarium import Zoo, merge
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.formats._transformers.families import FAMILIES
from vitarium.formats.import_zoo import import_zoo

TEXT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
LABELS = {"num_labels": 3}
POSITIONS = ("absolute_position_embeddings", "relative_position_bias")
CASES = {
    "ViTMAEModel": [{**VIT, "mask_ratio": 0.0}],
    "ViTMSNModel": [VIT],
    "ViTMSNForImageClassification": [VIT, {**VIT, "qkv_bias": False, "layer_norm_eps": 0.1}],
    "DeiTForImageClassification": [VIT, {**VIT, "num_channels": 1, "hidden_act": "relu"}],
    "DeiTModel": [VIT],
    "DeiTForImageClassificationWithTeacher": [VIT, {**VIT, "layer_norm_eps": 0.1}],
    "IJepaForImageClassification": [VIT, {**VIT, "layer_norm_eps": 0.1}],
    "Dinov2WithRegistersForImageClassification": [
        SIZES,
        {**SIZES, "num_register_tokens": 2, "use_swiglu_ffn": True},
        {**SIZES, "num_register_tokens": 0},
    ],
    "Dinov2WithRegistersModel": [SIZES],
    "DINOv3ViTModel": [
        VIT,
        {**VIT, "num_register_tokens": 3, "layerscale_value": 0.5, "rope_theta": 50.0},
        {**VIT, "use_gated_mlp": True, "hidden_act": "silu"},
        {**VIT, "query_bias": False, "value_bias": False, "layer_norm_eps": 0.1},
    ],
    "BeitForImageClassification": [
        VIT,
        {**VIT, "use_mean_pooling": False, "layer_norm_eps": 0.1},
        {**VIT, "layer_scale_init_value": 0.0},
        *({**VIT, f"use_{position}": True} for position in POSITIONS),
        {**VIT, "use_shared_relative_position_bias": True},
    ],
    "BeitModel": [VIT, {**VIT, "use_mean_pooling": False}],
    "Data2VecVisionForImageClassification": [{**VIT, "use_relative_position_bias": True}],
    "SwinForImageClassification": [
        SWIN,
        {**SWIN, "qkv_bias": False, "mlp_ratio": 2.0},
        {**SWIN, "image_size": 40, "depths": [1, 2, 1], "num_heads": [1, 2, 3], "window_size": 5},
    ],
    "SwinModel": [SWIN],
    "CLIPVisionModel": [VIT, {**VIT, "hidden_act": "gelu", "layer_norm_eps": 0.1}],
    "CLIPVisionModelWithProjection": [{**VIT, "projection_dim": 7}],
    "SiglipVisionModel": [VIT, {**VIT, "layer_norm_eps": 0.1}],
    "SiglipForImageClassification": [
        {"vision_config": VIT, "text_config": {**TEXT, "intermediate_size": 40}}
    ],
}


def pooled(output):
    """What a classifier gives, else what the library pools, else the class token."""
    for name in ("logits", "image_embeds", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return output.last_hidden_state[:, 0]


def built(name, settings):
    labels = LABELS if "Classification" in name else {}
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**settings, **labels))
    if name in ("DeiTModel", "ViTMAEModel", "ViTMSNModel"):  # its pooler is of no classifier
        model.pooler = None
    return randomized(model)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_transformers(tmp_path, name):
    for number, settings in enumerate(CASES[name]):
        original = built(name, settings)
        original.save_pretrained(tmp_path / f"{number}")
        (id,) = import_zoo(tmp_path / f"{number}", tmp_path / f"zoo{number}")
        zoo = Zoo.open(tmp_path / f"zoo{number}")
        size = zoo.spec(id).origin.architecture.config.input_size
        images = torch.randn(3, *size)
        with torch.no_grad():
            expected, outputs = pooled(original(images)), zoo.load(id)(images)
        torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
        assert zoo.folder(id).about().num_outputs == expected.shape[1]
        classes = ("LABEL_0", "LABEL_1", "LABEL_2") if "Classification" in name else ()
        assert zoo.folder(id).about().classes == classes


def test_every_family_is_compared_with_transformers():
    elsewhere = {"ViTForImageClassification", "ViTModel"}
    elsewhere |= {"Dinov2ForImageClassification", "Dinov2Model"}
    assert FAMILIES.keys() == CASES.keys() | elsewhere | {"ViTMAEForPreTraining"}


@pytest.mark.parametrize("settings", [{}, {"layer_norm_eps": 0.1, "qkv_bias": False}])
def test_of_a_masked_autoencoder_the_encoder_is_imported(tmp_path, settings):
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
    decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    config = transformers.ViTMAEConfig(**VIT, **decoder, **settings, mask_ratio=0.0)
    original = randomized(transformers.ViTMAEForPreTraining(config))
    original.save_pretrained(tmp_path / "theirs")
    (id,) = import_zoo(tmp_path / "theirs", tmp_path / "zoo")
    zoo, images = Zoo.open(tmp_path / "zoo"), torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = original.vit(images).last_hidden_state[:, 0]  # no patch is masked
        torch.testing.assert_close(zoo.load(id)(images), expected, atol=1e-5, rtol=1e-5)
    assert zoo.folder(id).about().num_outputs == VIT["hidden_size"]
    assert not any("decoder" in name for name in zoo.state_dict(id))


@pytest.mark.parametrize("operator", ["uniform_soup", "slerp", "task_arithmetic"])
def test_models_with_two_heads_are_not_merged(tmp_path, operator):
    for folder in ("a", "b"):
        original = built("DeiTForImageClassificationWithTeacher", VIT)
        original.save_pretrained(tmp_path / "theirs" / folder)
    ids = import_zoo(tmp_path / "theirs", tmp_path / "zoo")
    before = set((tmp_path / "zoo").rglob("*"))
    with pytest.raises(InvalidInput, match=r"has several heads \(head, head_dist\); choose"):
        merge(Zoo.open(tmp_path / "zoo"), operator, models=ids)
    assert set((tmp_path / "zoo").rglob("*")) == before


@pytest.mark.parametrize("name", ["linear", "mlp", "none"])
def test_models_with_two_heads_get_no_new_one(tmp_path, name):
    built("DeiTForImageClassificationWithTeacher", VIT).save_pretrained(tmp_path / "theirs")
    (id,) = import_zoo(tmp_path / "theirs", tmp_path / "zoo")
    model = Zoo.open(tmp_path / "zoo").load(id)
    head = choose("head", name, **({"hidden_dim": 4} if name == "mlp" else {}))
    with pytest.raises(InvalidInput, match=r"has several heads \(head, head_dist\); choose"):
        head(model, 5)
