"""Post-training quantization: what becomes of a model, its bytes and its errors."""

import pytest
import torch
from safetensors.torch import load_file

from vitarium import Blueprint, compress, export, grow, measure, merge
from vitarium.architectures.quantized.quantized_vit import QuantizedVit, fit_weights, simulated_vit
from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.quantization.repq import (
    activation_quantizer,
    mean_grid,
    normed_layers,
    reparameterize,
)

ARCHITECTURE = {
    "name": "vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
}
METHODS = ["repq", "round_to_nearest"]


@pytest.fixture
def original(zoo):
    models = zoo.models()
    return models[models["head"] == "linear"]["id"].iloc[0]


def images():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def relative_difference(zoo, original, student):
    with torch.inference_mode():
        expected, outputs = (zoo.load(id)(images()) for id in (original, student))
    return float((outputs - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_4_bits_takes_an_eighth_and_little_else(zoo, original, method):
    done = compress(zoo, method, models=[original], weight_bits=4, activation_bits=8)
    (student,) = done.students.values()
    row = done.comparison.iloc[0]
    weights = {n: t for n, t in zoo.state_dict(original).items() if t.ndim in (2, 4)}
    others = sum(t.nbytes for t in zoo.state_dict(original).values()) - sum(
        tensor.nbytes for tensor in weights.values()
    )
    rows = sum(len(tensor) for tensor in weights.values())
    ranges = 8 * (8 * 2 + 1)  # scale and zero point of eight tensors in each block, and one
    codes = sum(tensor.nbytes for tensor in weights.values()) // 8
    stored = zoo.checkpoint(student)
    assert (
        row["bytes_after"]
        == stored.nbytes
        == codes
        + others
        + 5 * rows
        + ranges
        - 4
        * 2
        * (
            method == "repq"  # log sqrt(2) has no zero point
        )
    )
    assert row["parameters_after"] == row["parameters_before"]
    counted = measure(zoo, "parameters", models=[original, student])
    assert counted[counted["part"] == ""]["value"].nunique() == 1
    assert stored["blocks.0.mlp.fc1.weight.codes"].dtype == torch.uint8
    assert stored.path.stat().st_size < 0.3 * zoo.checkpoint(original).path.stat().st_size
    assert row["accuracy_after"] > row["accuracy_before"] - 0.1
    assert zoo[student].factors["head"] == "quantized_linear"
    folder = zoo.path.parent / "exported"
    export(zoo, "safetensors", out=folder, models=[student])
    (file,) = folder.rglob("*.safetensors")
    assert load_file(file)["head.weight.codes"].dtype == torch.uint8


@pytest.mark.parametrize("method", METHODS)
def test_errors_fall_with_bits(zoo, original, method):
    differences, logged = [], []
    for bits in (8, 6, 4, 3):
        model = merge(zoo, method, models=[original], weight_bits=bits, activation_bits=bits)
        differences.append(relative_difference(zoo, original, model.id))
        logged.append(model.metrics["feature_error"].item())
    assert differences == sorted(differences)
    assert differences[0] < 0.08
    assert logged == sorted(logged)
    assert logged[0] < 0.08


def test_channel_scales_beat_one_scale_at_few_bits(zoo, original):
    errors = {
        method: merge(
            zoo,
            method,
            models=[original],
            weight_bits=4,
            activation_bits=4,
            softmax_quantizer="uniform",
        )
        for method in METHODS
    }
    logged = {m: model.metrics["feature_error"].item() for m, model in errors.items()}
    assert logged["repq"] < logged["round_to_nearest"]


def test_weights_alone(zoo, original):
    model = merge(zoo, "repq", models=[original], weight_bits=8, activation_bits=None)
    assert relative_difference(zoo, original, model.id) < 0.02
    assert not [name for name in zoo.state_dict(model.id) if ".input." in name]


def test_integers_compute_what_is_simulated(zoo, original):
    bits = {"weight_bits": 4, "activation_bits": 8}
    simulated = merge(zoo, "repq", models=[original], **bits).load()(images())
    integers = merge(zoo, "repq", models=[original], execution="int8", **bits).load()
    assert integers.head.execution == "int8"
    torch.testing.assert_close(integers(images()), simulated, rtol=1e-3, atol=1e-3)


def test_a_head_that_is_not_linear_stays(zoo):
    models = zoo.models()
    id = models[models["head"] == "mlp"]["id"].iloc[0]
    student = merge(zoo, "round_to_nearest", models=[id], weight_bits=4)
    assert torch.equal(
        zoo.state_dict(student.id)["head.2.weight"], zoo.state_dict(id)["head.2.weight"]
    )
    assert relative_difference(zoo, id, student.id) < 0.5


def calibrated(bits=4):
    """A twin in float64 with norms of their own, and the tokens that its first block sees."""
    with seeds.seeded(0):
        config = QuantizedVit(**{k: v for k, v in ARCHITECTURE.items() if k != "name"})
        model = simulated_vit(config, 3, activations=activation_quantizer).double().eval()
        tokens = torch.randn(3, 9, 48, dtype=torch.float64)
        for norm, layer in normed_layers(model).values():
            norm.weight.data.copy_(0.2 + torch.rand(48).double() * 3)
            norm.bias.data.copy_(torch.randn(48).double())
            layer.input = activation_quantizer(bits, (48,), holds_zero=False).double()
            layer.input.fit(norm(tokens).detach())
    return model.requires_grad_(False), tokens


def without_quantizers(norm, layer, tokens):
    return torch.nn.functional.linear(norm(tokens), layer.weight.values, layer.bias)


def test_moving_scales_changes_no_function():
    model, tokens = calibrated()
    pairs = normed_layers(model).values()
    before = [without_quantizers(norm, layer, tokens) for norm, layer in pairs]
    reparameterize(model)
    after = [without_quantizers(norm, layer, tokens) for norm, layer in pairs]
    for expected, moved in zip(before, after, strict=True):
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-11)


def test_moving_scales_keeps_every_code():
    model, tokens = calibrated()
    pairs = normed_layers(model).values()
    before = [layer.input.codes(norm(tokens)) for norm, layer in pairs]
    grids = [mean_grid(layer.input) for _, layer in pairs]
    reparameterize(model)
    for expected, (norm, layer), (scale, zero_point) in zip(before, pairs, grids, strict=True):
        assert torch.equal(layer.input.codes(norm(tokens)), expected)
        # an integer zero point may be added before rounding or after
        added_before = torch.round(norm(tokens) / scale + zero_point).clamp(0, 15)
        assert torch.equal(added_before, expected)
        assert layer.input.scale.shape == ()


def test_a_channel_of_zeros_has_no_say_in_the_mean():
    quantizer = activation_quantizer(4, (3,), holds_zero=False)
    quantizer.fit(torch.stack([torch.zeros(5), *torch.randn(2, 5)], dim=1))
    scale, _ = mean_grid(quantizer)
    assert scale == quantizer.scale[1:].mean()


def test_weights_are_fitted_row_by_row():
    model, _ = calibrated()
    fit_weights(model)
    assert model.blocks[0].mlp.fc1.weight.quantizer.scale.shape == (192, 1)
    assert model.patch_embed.proj.weight.quantizer.scale.shape == (48, 1, 1, 1)


def test_a_quantized_model_is_neither_quantized_again_nor_combined(zoo, original):
    students = [merge(zoo, "repq", models=[original], num_images=n).id for n in (8, 32)]
    for method, models in (("repq", students[:1]), ("uniform_soup", students)):
        with pytest.raises(IncompatibleWeights, match="a quantized_vit stores its weights as int"):
            merge(zoo, method, models=models)
    with pytest.raises(IncompatibleWeights, match="train or combine what it was made of"):
        merge(zoo, "weight_matching", models=students)


def test_a_quantized_model_is_not_trained(zoo, original):
    student = merge(zoo, "repq", models=[original]).id
    stage = {
        "start": {"models": [student]},
        "data": {"name": "digits", "train_limit": 32},
        "epochs": 1,
        "batch_size": 16,
    }
    blueprint = Blueprint.read({"name": "more", "stages": {"more": stage}})
    with pytest.raises(InvalidConfig, match="a quantized_vit stores its weights as integers"):
        grow(blueprint, zoo.path, workers=0, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": 2}, "greater than or equal to 3"),
        ({"weight_bits": 16}, "less than or equal to 8"),
        ({"num_images": 0}, "greater than 0"),
        ({"bits": 4}, "no setting 'bits'"),
    ],
)
def test_wrong_settings_are_named(zoo, original, settings, message):
    with pytest.raises(InvalidConfig, match=message):
        merge(zoo, "repq", models=[original], **settings)


def test_a_list_of_bits_of_another_length_is_refused(zoo, original):
    with pytest.raises(IncompatibleWeights, match="weight_bits has 3 numbers; 2 blocks have 8"):
        merge(zoo, "repq", models=[original], weight_bits=(4, 4, 4))


def test_measures_see_a_quantized_model(zoo, original):
    student = merge(zoo, "repq", models=[original]).id
    chosen = {"models": [original, student], "pairs": "all"}
    table = measure(zoo, ["agreement", "attention_entropy"], **chosen)
    agreement = table[table["measure"] == "agreement"]["value"].iloc[0]
    assert agreement > 0.9
    assert not table["refused"].any()
