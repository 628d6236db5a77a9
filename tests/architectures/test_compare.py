"""Which architectures compute the same function of equal weights."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from vitarium.architectures.base import TransformerConfig, architecture
from vitarium.architectures.compare import (
    architecture_differences,
    described,
    module_differences,
)
from vitarium.blueprint import Imported
from vitarium.core import registry
from vitarium.core.registry import choose, section

TI = "vit_tiny_patch16_224"


def model(name, head=None, **settings):
    return Imported(
        source="test",
        name="model",
        weights="",
        architecture=choose("architecture", name, **settings),
        head=head and section("head", head),
    )


def timm(name=TI, **settings):
    return model("timm", model=name, **settings)


def mlp(**settings):
    return {"name": "mlp", "hidden_dim": 8, **settings}


SAME = {
    "rates": (model("vit"), model("vit", drop_path_rate=0.1, pos_drop_rate=0.2)),
    "timm's": (model("vit"), timm()),
    "timm's with other rates": (model("vit", drop_rate=0.3), timm(drop_path_rate=0.1)),
    "a default": (timm(), timm(img_size=224)),
    "another preset": (timm(), timm("vit_small_patch16_224", embed_dim=192, num_heads=3)),
    "an activation by name": (timm(), timm(act_layer="gelu")),
    "seeds of heads": (
        model("vit", head="linear"),
        model("vit", head={"name": "linear", "seed": 3}),
    ),
    "a head that is timm's": (model("vit"), model("vit", head="linear")),
    "what a layer scale starts from": (
        model("dinov2", init_values=1e-5),
        model("dinov2", init_values=0.1),
    ),
    "how experts are trained": (model("ewa_vit"), model("ewa_vit", share_rate=0.5)),
}
DIFFERENT = {
    "heads": (model("vit"), model("vit", num_heads=6), {"num_heads": (3, 6)}),
    "heads of timm's": (timm(), timm(num_heads=6), {"num_heads": (3, 6)}),
    "epsilon": (model("vit"), model("vit", norm_eps=1e-12), {"norm_eps": (1e-6, 1e-12)}),
    "activation": (model("vit"), model("vit", act_layer="relu"), {"act_layer": ("gelu", "relu")}),
    "pooling": (model("vit"), model("vit", global_pool="avg"), {"global_pool": ("token", "avg")}),
    "windows": (
        timm("swin_tiny_patch4_window7_224"),
        timm("swin_tiny_patch4_window7_224", window_size=14),
        {"window_size": ((7, 7), (14, 14))},
    ),
    "activation of a head": (
        model("vit", head=mlp()),
        model("vit", head=mlp(activation="gelu", seed=2)),
        {"head.activation": ("relu", "gelu")},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_function_is_no_difference(case):
    first, second = SAME[case]
    assert architecture_differences(first, second) == {}
    assert architecture_differences(second, first) == {}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_named_with_both_values(case):
    first, second, expected = DIFFERENT[case]
    assert architecture_differences(first, second) == expected
    swapped = {name: (b, a) for name, (a, b) in expected.items()}
    assert architecture_differences(second, first) == swapped


@pytest.mark.parametrize("case", DIFFERENT)
def test_shapes_do_not_tell_them_apart(case):
    """Else the comparison would not be needed."""
    shapes = []
    for origin in DIFFERENT[case][:2]:
        with torch.device("meta"):
            state = origin.build(5).state_dict()
        shapes.append({name: tensor.shape for name, tensor in state.items() if "bias" not in name})
    if case not in ("windows", "pooling"):
        assert shapes[0] == shapes[1]


def test_across_architectures_modules_are_named():
    differences = architecture_differences(model("vit", act_layer="relu"), timm())
    assert differences["blocks.0.mlp.act"] == ("ReLU", "gelu")
    assert set(differences) == {f"blocks.{number}.mlp.act" for number in range(12)}
    assert described(differences).startswith("blocks.0.mlp.act (ReLU and gelu), ")
    assert described(differences).endswith(" and 9 more")


def test_heads_count_only_where_they_are_asked_for():
    first, second = DIFFERENT["activation of a head"][:2]
    assert architecture_differences(first, second, head=False) == {}


def test_of_a_model_without_an_architecture_nothing_is_known():
    tensors = Imported(source="test", name="model", weights="")
    assert architecture_differences(tensors, model("vit")) == {}


@pytest.fixture
def hidden(monkeypatch):
    """An architecture from outside whose factor shows in no attribute."""
    plugins = {kind: dict(named) for kind, named in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", plugins)

    class Hidden(TransformerConfig):
        power: int = 1
        warmup: int = 0

    @architecture("hidden", training_factors=["warmup"])
    def hidden(config: Hidden, num_outputs: int) -> nn.Module:
        return nn.Linear(3, num_outputs)

    return hidden


def test_every_factor_counts_that_is_not_declared_as_one_of_training(hidden):
    assert architecture_differences(model("hidden"), model("hidden", power=2)) == {"power": (1, 2)}
    assert architecture_differences(model("hidden"), model("hidden", warmup=2)) == {}


def test_running_models_are_compared_by_their_modules():
    first, second = nn.GELU(), nn.GELU(approximate="tanh")
    assert module_differences(first, second) == {"": ("gelu", "gelu_tanh")}
    layers = [nn.Sequential(nn.Linear(2, 3), nn.Dropout(rate)) for rate in (0.0, 0.5)]
    assert module_differences(*layers) == {}
    norms = [nn.LayerNorm(3, eps=eps) for eps in (1e-5, 1e-6)]
    assert module_differences(*norms) == {"eps": (1e-5, 1e-6)}


class Holding(nn.Module):
    """Has a value that is no parameter."""

    def __init__(self, value):
        super().__init__()
        self.value = value


def scaled(factor):
    return lambda x: factor * x


CIRCLE = []
CIRCLE.append(CIRCLE)
HELD = {
    "tensor": (torch.zeros(3), torch.ones(3)),
    "array": (np.zeros(3), np.ones(3)),
    "set": ({1, 2}, {1, 3}),
    "dtype": (torch.float16, torch.float32),
    "complex": (1j, 2j),
    "number of NumPy": (np.float32(1), np.float32(2)),
    "function": (lambda x: x, lambda x: 2 * x),
    "captured": (scaled(2), scaled(3)),
    "keys": ({1: 2, "1": "a"}, {1: 3, "1": "a"}),
    "not a number": (float("nan"), 1.0),
    "circle": (CIRCLE, [1]),
}


@pytest.mark.parametrize("name", HELD)
def test_values_that_modules_hold_are_compared(name):
    first, second = HELD[name]
    assert module_differences(Holding(first), Holding(second)).keys() == {"value"}
    assert not module_differences(Holding(first), Holding(deepcopy(first)))
