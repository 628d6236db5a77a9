"""A `ci2p` from a trained codec: what it takes over, and that no training changes it."""

import pytest
import torch

import vitarium
from vitarium import Blueprint, grow
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose, section
from vitarium.engine.check import ModelCheck
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.ci2p import TokensOfCodec, tokens_architecture

CODEC = {"name": "image_codec", "img_size": 16, "num_convs": 2, "width": 6, "channels": 10}
SIZES = {"embed_dim": 16, "depth": 1, "num_heads": 2}


def trained(**factors):
    chosen = section("architecture", CODEC | factors)
    torch.manual_seed(0)
    model = chosen(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return chosen, model


def tensors(model, **settings):
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    return dict(choose("operator", "ci2p", **SIZES, **settings)(Ingredients([weights])))


def converted(chosen, model, **settings):
    built = tokens_architecture(TokensOfCodec(**SIZES, **settings), chosen)(5)
    built.load_state_dict(tensors(model, **settings))
    return built


def test_tokens_are_computed_from_the_codecs_maps():
    chosen, codec = trained()
    model = converted(chosen, codec).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        maps = codec.forward_features(images)
        tokens = model.patch_embed.mixers(maps).flatten(2).transpose(1, 2)
        assert maps.shape == (3, 10, 4, 4)
        assert torch.equal(model.patch_embed.codec(images), maps)
        assert torch.equal(model.patch_embed(images), tokens)
    assert tokens.shape == (3, 4, 16)


def test_no_step_changes_the_codec_which_stays_in_eval_mode():
    model = converted(*trained()).train()
    codec = model.patch_embed.codec
    assert not list(codec.parameters())
    assert not any(part.training for part in codec.modules())
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    images = torch.randn(3, 3, 16, 16, requires_grad=True)
    model(images).sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5).step()
    assert all(torch.equal(codec.state_dict()[name], tensor) for name, tensor in before.items())
    assert images.grad is None


def test_all_but_the_codec_is_drawn_by_the_seed():
    _, codec = trained()
    first, second = tensors(codec), tensors(codec, seed=1)
    assert torch.equal(first["head.weight"], tensors(codec)["head.weight"])
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert {name for name in same if "codec" in name} == {
        f"patch_embed.codec.{number}.{part}" for number in (0, 2) for part in ("weight", "bias")
    }
    assert not any(name.endswith("qkv.weight") for name in same)


def test_a_codec_without_head_gives_a_model_without_one():
    chosen = section("architecture", CODEC)
    model = chosen(5)
    choose("head", "none")(model, 5)
    assert "head.weight" not in tensors(model)


def test_other_heads_and_architectures_are_refused():
    chosen, codec = trained()
    registry.choose("head", "mlp", hidden_dim=4)(codec, 5)
    with pytest.raises(IncompatibleWeights, match="its head is not linear"):
        tensors(codec)
    with pytest.raises(IncompatibleWeights, match="needs an image_codec, not vit"):
        tokens_architecture(TokensOfCodec(), section("architecture", "vit"))
    with pytest.raises(IncompatibleWeights, match="embed_dim 10 is not divisible by num_heads 3"):
        tokens_architecture(TokensOfCodec(embed_dim=10), chosen)
    odd = section("architecture", CODEC | {"img_size": 20})
    with pytest.raises(IncompatibleWeights, match="img_size 20 is not divisible by patch_size 8"):
        tokens_architecture(TokensOfCodec(), odd)


DIGITS = {"data": {"name": "digits", "train_limit": 64}, "batch_size": 32, "checkpoints": "last"}
STAGES = {
    "codec": {
        **DIGITS,
        "architecture": CODEC | {"img_size": 8, "in_chans": 1, "num_convs": 1},
        "objective": "rate_distortion",
        "normalization": {"mean": 0.3, "std": 1},
        "epochs": 2,
    },
    "tokens": {
        **DIGITS,
        "start": {"stage": "codec", "operator": {"name": "ci2p", **SIZES}},
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.5},
        "epochs": 1,
    },
    "longer": {**DIGITS, "start": "tokens", "epochs": 1},
}


def test_one_blueprint_trains_a_codec_and_models_on_its_maps(tmp_path):
    blueprint = Blueprint.read({"name": "codec", "stages": STAGES})
    plain = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1}
    zoo = grow(blueprint, tmp_path / "zoo", progress=False, **plain).zoo
    models = {zoo.spec(id).stage: zoo[id] for id in zoo.ids()}
    codec, tokens, longer = (models[stage] for stage in ("codec", "tokens", "longer"))
    assert tokens.parent.id == codec.id
    assert longer.parent.id == tokens.id
    spec = zoo.spec(tokens.id)
    assert spec.conversion.name == "ci2p"
    assert spec.recipe.architecture.config.codec == "trained"
    assert spec.recipe.normalization == zoo.spec(codec.id).recipe.normalization
    learned = zoo.state_dict(codec.id)
    for model in (tokens, longer):
        frozen = zoo.state_dict(model.id)
        for name, tensor in learned.items():
            assert torch.equal(frozen[name.replace("layers", "patch_embed.codec")], tensor)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        maps = zoo.load(codec.id).forward_features(images)
        assert torch.equal(zoo.load(longer.id).patch_embed.codec(images), maps)


def test_a_trained_codec_has_to_come_from_a_parent():
    architecture = {"name": "ci2p", "img_size": 8, "in_chans": 1, "patch_size": 4, **SIZES}
    architecture |= {"codec": "trained", "codec_channels": 10, "codec_width": 6}
    stage = {**DIGITS, "architecture": architecture, "epochs": 1}
    with pytest.raises(InvalidConfig, match="its parent's weights: start from a codec"):
        vitarium.plan({"name": "x", "stages": {"a": stage}}, check=ModelCheck())
