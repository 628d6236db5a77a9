"""Adapters beside and behind MLPs, against their formulas."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from adaptations.tiny_models import SMALL, SWIN
from vitarium.architectures.create import create_model
from vitarium.architectures.features import transformer_blocks
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.testing import check_adaptation

MODELS = {
    "vit": SMALL,
    "ewa_vit": {**SMALL, "expert_blocks": "all"},
    "mini_deit": SMALL,
    "dinov2": {**SMALL, "swiglu": True, "init_values": 0.5},
    "timm": {**SWIN, "model": "swin_tiny_patch4_window7_224"},
}  # fmt: skip


def built(name="vit", **settings):
    torch.manual_seed(0)
    plain = create_model(name, num_classes=3, **MODELS[name]).eval()
    adapted = copy.deepcopy(plain)
    section("adaptation", {"name": "adapter", "bottleneck": 4, **settings})(adapted)
    return plain, adapted.eval()


def drawn(model):
    """Adapters as they may be after training."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".adapter." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def bottleneck(weights, inputs, activation):
    hidden = activation(inputs @ weights["down.weight"].T + weights["down.bias"])
    return hidden @ weights["up.weight"].T + weights["up.bias"]


@pytest.mark.parametrize("position", ["parallel", "serial"])
@pytest.mark.parametrize("name", MODELS)
def test_it_starts_as_the_parent_and_learns_in_every_block(name, position):
    plain, adapted = built(name, position=position)
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(adapted(images), plain(images), atol=1e-6)
    names = [f"{block}.mlp.adapter.down.weight" for block in transformer_blocks(plain)]
    assert set(names) <= set(adapted.state_dict())
    assert plain.state_dict().keys() < adapted.state_dict().keys()
    learns = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert learns == {n for n in adapted.state_dict() if ".adapter." in n or n.startswith("head.")}
    assert not torch.allclose(drawn(adapted)(images), plain(images), atol=1e-4)


@pytest.mark.parametrize("position", ["parallel", "serial"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_an_mlp_and_its_adapter_are_the_formula(position, activation):
    plain, adapted = built(position=position, activation=activation, scale=0.3)
    weights = drawn(adapted).blocks[1].mlp.adapter.state_dict()
    tokens = torch.randn(2, 5, 16)
    outputs = plain.blocks[1].mlp(tokens)
    seen = tokens if position == "parallel" else outputs
    expected = outputs + 0.3 * bottleneck(weights, seen, getattr(F, activation))
    assert torch.allclose(adapted.blocks[1].mlp(tokens), expected, atol=1e-6)


def test_scales_are_the_papers_unless_set():
    for position, scale in (("parallel", 0.1), ("serial", 1.0)):
        _, adapted = built(position=position)
        assert adapted.blocks[0].mlp.adapter.scale == scale


def test_blocks_are_chosen_and_a_missing_one_is_refused():
    _, adapted = built(blocks=[-1])
    assert {n.split(".mlp")[0] for n in adapted.state_dict() if ".adapter." in n} == {"blocks.1"}
    with pytest.raises(Exception, match="'adapter': there is no block 2; the model has 2"):
        built(blocks=[2])


@pytest.mark.parametrize("settings", [{"bottleneck": 0}, {"position": "before"}, {"scale": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(InvalidConfig):
        built(**settings)


def test_copies_and_pickles_compute_the_same():
    _, adapted = built("timm")
    images = torch.randn(2, 3, 16, 16)
    expected = drawn(adapted)(images)
    for again in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert torch.equal(again(images), expected)
        assert type(again.layers[0].blocks[0].mlp) is type(adapted.layers[0].blocks[0].mlp)


def test_the_serial_one_keeps_to_the_contract_too():
    check_adaptation("adapter", position="serial", bottleneck=4, activation="gelu")


def test_frozen_experts_stay_while_adapters_learn():
    _, adapted = built("ewa_vit")
    adapted.train()
    for module in adapted.modules():
        if hasattr(module, "after_step"):
            torch.nn.init.normal_(module.experts[0].fc1.weight)
            before = copy.deepcopy(module.state_dict())
            module.after_step()
            assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
