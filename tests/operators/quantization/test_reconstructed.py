"""Methods that reconstruct, or allocate bits: what becomes of a trained model."""

import pytest
import torch
from torch import nn

from vitarium import merge
from vitarium.architectures.quantized._layers import FloatWeight, QuantizedLinear
from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.quantization._parts import logits_from, parts_of
from vitarium.operators.quantization._relu_mlps import percentile_of_positive
from vitarium.operators.quantization._training import exact_weights
from vitarium.operators.quantization.dopq import median_grid
from vitarium.operators.quantization.repq import move_scales, normed_layers

ARCHITECTURE = {
    "name": "vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}
FEW_BITS = {"weight_bits": 3, "activation_bits": 4, "num_images": 32, "reconstruction_images": 64}


def of_head(zoo, head):
    models = zoo.models()
    return models[models["head"] == head]["id"].iloc[0]


def made(zoo, method, head="linear", **settings):
    return merge(zoo, method, models=[of_head(zoo, head)], device="cpu", **settings)


def feature_error(model):
    return model.metrics["feature_error"].item()


def weight(zoo, model, layer):
    """As it computes, and the scale of each row."""
    packed = zoo.load(model).get_submodule(layer).weight
    return packed(), packed.scale


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("is_vit", {"lr": 3e-3, "softmax_quantizer": "uniform"}),
        ("dopq", {"lr": 3e-3}),
        ("fima", {"rounding_lr": 0.05, "sensitivity_images": 8}),
        ("aphq", {"rounding_lr": 0.05, "sensitivity_images": 8, "relu": False}),
    ],
)
def test_reconstruction_brings_features_nearer_to_the_originals(zoo, method, settings):
    without = made(zoo, method, steps=0, **FEW_BITS, **settings)
    fitted = made(zoo, method, steps=30, **FEW_BITS, **settings)
    assert feature_error(fitted) < 0.95 * feature_error(without)


@pytest.mark.parametrize("method", ["fima", "aphq"])
def test_learned_weights_are_rounded_down_or_up(zoo, method):
    settings = {"rounding_lr": 0.1, "steps": 20, "relu": False} if method == "aphq" else {}
    settings = {"rounding_lr": 0.1, "steps": 20, **settings}
    model = made(zoo, method, **FEW_BITS, **settings)
    original, nearest = of_head(zoo, "linear"), made(zoo, "repq", **_ranges())
    moved = 0
    for layer in ("blocks.0.attn.proj", "blocks.1.mlp.fc2"):
        exact = zoo.load(original).get_submodule(layer).weight
        rounded, scale = weight(zoo, model.id, layer)
        at_nearest, scale_of_nearest = weight(zoo, nearest.id, layer)
        assert torch.equal(scale, scale_of_nearest)
        inside = (at_nearest - exact).abs() <= scale[:, None] / 2
        off = ((rounded - exact).abs() / scale[:, None])[inside]
        assert float(off.max().detach()) < 1 + 1e-4
        moved += int((rounded != at_nearest).sum())
    assert moved > 0


def _ranges():
    return {"weight_bits": 3, "activation_bits": 4, "softmax_quantizer": "uniform"}


def test_norms_and_positions_are_not_trained(zoo):
    fitted = made(zoo, "is_vit", steps=5, lr=1e-2, **FEW_BITS)
    own = zoo.state_dict(of_head(zoo, "linear"))
    tensors = zoo.state_dict(fitted.id)
    for name in ("norm.weight", "norm.bias", "pos_embed", "cls_token"):
        assert torch.equal(own[name], tensors[name])
    assert not torch.equal(own["blocks.0.mlp.fc2.bias"], tensors["blocks.0.mlp.fc2.bias"])


@pytest.mark.parametrize("method", ["is_vit", "fima"])
def test_a_head_that_is_not_linear_stays_as_it_is(zoo, method):
    model = made(zoo, method, head="mlp", steps=2, **FEW_BITS)
    own, tensors = zoo.state_dict(of_head(zoo, "mlp")), zoo.state_dict(model.id)
    heads = [name for name in own if name.startswith("head.")]
    assert heads
    assert all(torch.equal(own[name], tensors[name]) for name in heads)


def test_methods_have_the_quantizers_of_their_papers(zoo):
    softmax = {
        "is_vit": "shift_log2",
        "dopq": "tangent",
        "fima": "uniform",
        "lrp_qvit": "log_sqrt2",
    }
    for method, quantizer in softmax.items():
        settings = {} if method == "lrp_qvit" else {"steps": 0}
        architecture = zoo.spec(made(zoo, method, **settings).id).origin.architecture
        assert architecture.config.softmax_quantizer == quantizer


def test_mlps_with_relu_learn_what_they_computed_with_gelu(zoo):
    bits = {**FEW_BITS, "weight_bits": 8, "activation_bits": 8, "steps": 0}
    swapped = made(zoo, "aphq", mlp_steps=0, **bits)
    fitted = made(zoo, "aphq", mlp_steps=100, mlp_lr=3e-3, **bits)
    assert zoo.spec(fitted.id).origin.architecture.config.act_layer == "relu"
    assert feature_error(fitted) < 0.5 * feature_error(swapped)
    with_gelu = made(zoo, "aphq", relu=False, **bits)
    assert zoo.spec(with_gelu.id).origin.architecture.config.act_layer == "gelu"
    assert feature_error(with_gelu) < feature_error(fitted)


def test_relevance_gives_layers_bits_within_the_budget(zoo):
    model = made(zoo, "lrp_qvit", mean_bits=4.5)
    architecture = zoo.spec(model.id).origin.architecture.config
    bits = architecture.weight_bits
    sizes = [3 * 24 * 24, 24 * 24, 4 * 24 * 24, 4 * 24 * 24] * 2
    mean = sum(b * size for b, size in zip(bits, sizes, strict=True)) / sum(sizes)
    assert len(set(bits)) > 1
    assert 4.5 - min(sizes) / sum(sizes) < mean <= 4.5
    assert model.metrics["mean_bits"].item() == pytest.approx(mean)
    assert architecture.activation_bits == bits
    assert architecture.embedding_bits == 8
    assert zoo.spec(model.id).operator.config.weight_bits == bits
    again = made(zoo, "lrp_qvit", mean_bits=4.5, weight_bits=list(bits))
    assert again.id == model.id


def test_what_relevance_cannot_allocate_is_refused(zoo):
    with pytest.raises(IncompatibleWeights, match=r"logits of a linear head.*name weight_bits"):
        made(zoo, "lrp_qvit", head="mlp")
    with pytest.raises(InvalidConfig, match="mean_bits"):
        made(zoo, "lrp_qvit", mean_bits=2.5)
    with pytest.raises(IncompatibleWeights, match="weight_bits has 3 numbers"):
        made(zoo, "lrp_qvit", weight_bits=[3, 4, 5])


def test_the_chain_of_parts_is_the_model(zoo):
    images = torch.randn(2, 1, 8, 8)
    for head in ("linear", "mlp"):
        model = zoo.load(of_head(zoo, head)).eval()
        with torch.no_grad():
            assert torch.allclose(logits_from(model, -1)(images), model(images), atol=1e-6)
            tokens = parts_of(model)[1].enter(model, model.patch_embed(images))
            outputs = model.blocks[0](tokens)
            assert torch.allclose(logits_from(model, 1)(outputs), model(images), atol=1e-6)
    names = [part.name for part in parts_of(model)]
    assert names == ["patch_embed", "blocks.0", "blocks.1", "head"]


def test_the_median_scale_has_the_least_mean_absolute_deviation_and_ignores_an_outlier():
    quantizer = UniformQuantizer(4, (7,))
    quantizer.scale.copy_(torch.tensor([0.3, 0.1, 0.2, 0.25, 0.22, 0.15, 0.4]))
    quantizer.zero_point.copy_(torch.tensor([3.0, 8, 5, 9, 7, 6, 15]))
    scale, zero_point = median_grid(quantizer)
    deviations = [float((quantizer.scale - s).abs().mean()) for s in quantizer.scale]
    assert scale == quantizer.scale[deviations.index(min(deviations))]
    assert zero_point == 7
    quantizer.scale[6] = 100
    assert median_grid(quantizer)[0] == scale


def test_moving_scales_to_the_median_keeps_the_function(zoo):
    twin = zoo.load(made(zoo, "repq").id)
    norm, layer = normed_layers(twin.double())["blocks.0.attn.qkv"]
    layer.weight = FloatWeight(layer.weight().double()).requires_grad_(False)
    channels = UniformQuantizer(4, (24,), holds_zero=False).double()
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(0)).double()
    channels.fit(norm(x).detach())
    layer.input = nn.Identity()
    before = layer(norm(x))
    layer.input = channels
    move_scales(norm, layer, *median_grid(channels))
    layer.input = nn.Identity()
    assert torch.allclose(layer(norm(x)), before, atol=1e-12)


def test_weights_are_exact_inside_alone():
    layer = nn.Linear(4, 3)
    quantized = QuantizedLinear(layer, UniformQuantizer(3, (3, 1)))
    quantized.weight.quantizer.fit(layer.weight.detach())
    x = torch.randn(2, 4)
    coarse = quantized(x)
    with exact_weights(quantized):
        assert torch.equal(quantized(x), layer(x))
    assert torch.equal(quantized(x), coarse)


@pytest.mark.parametrize(("percentile", "value"), [(0.5, 2.0), (0.75, 3.0), (1.0, 4.0)])
def test_percentiles_are_of_the_positive_entries(percentile, value):
    hidden = torch.tensor([-5.0, 3.0, 0.0, 1.0, 4.0, -1.0, 2.0])
    assert percentile_of_positive(hidden, percentile) == value
    assert percentile_of_positive(-hidden.abs(), percentile) == 0
