"""Multiplexed twins of trained models: what they keep, share, and compute."""

import pytest
import torch

from vitarium.errors import IncompatibleWeights
from vitarium.measures.subjects import Weights
from vitarium.operators.ingredients import Ingredients
from vitarium.operators.minivit import Minivit, twin
from vitarium.registry import choose

TINY = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "depth": 4,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}


def plain(seed=0, equal=1, **factors):
    """A random `vit`, float64; in groups of so many blocks all but the norms are equal."""
    section = choose("architecture", "vit", **TINY | factors)
    torch.manual_seed(seed)
    model = section(5).double().eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        tensor.copy_(0.4 * torch.randn(tensor.shape) + ("norm" in name and "weight" in name))
    for number, block in enumerate(model.blocks):
        first = model.blocks[number - number % equal]
        block.attn.load_state_dict(first.attn.state_dict())
        block.mlp.load_state_dict(first.mlp.state_dict())
    return section, model


def made(model, **settings):
    settings = {"relative_positions": None} | settings
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    return dict(choose("operator", "minivit", **settings)(Ingredients([weights])))


def twin_of(section, model, **settings):
    """The twin, running in float64."""
    settings = {"relative_positions": None} | settings
    built = twin(Minivit(**settings), section)(model.num_classes).double()
    built.load_state_dict(made(model, **settings))
    return built.eval()


def outputs(model):
    torch.manual_seed(1)
    return model(torch.randn(3, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("init", ["first", "mean"])
@pytest.mark.parametrize(
    "factors",
    [
        {},
        {"global_pool": "avg", "class_token": False},
        {"global_pool": "avg", "reg_tokens": 2, "act_layer": "gelu_tanh", "norm_eps": 1e-12},
        {"qkv_bias": False, "act_layer": "quick_gelu"},
    ],
)
def test_where_the_blocks_of_each_group_are_equal_the_twin_computes_what_the_model_does(
    init, factors
):
    section, model = plain(equal=2, **factors)
    found = twin_of(section, model, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("init", ["first", "mean"])
def test_a_twin_with_a_set_of_weights_for_each_block_is_the_model_itself(init):
    section, model = plain()
    found = twin_of(section, model, share=1, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


def test_shared_weights_are_those_of_the_first_block_or_the_mean_of_the_group():
    _, model = plain()
    own = model.state_dict()
    first, mean = (made(model, share=(3, 1), init=init) for init in ("first", "mean"))
    for part in ("attn.qkv.weight", "attn.proj.bias", "mlp.fc1.weight", "mlp.fc2.bias"):
        blocks = [own[f"blocks.{number}.{part}"] for number in range(4)]
        assert torch.equal(first[f"shared.0.{part}"], blocks[0])
        torch.testing.assert_close(
            mean[f"shared.0.{part}"], sum(blocks[:3]) / 3, rtol=0, atol=1e-12
        )
        assert torch.equal(mean[f"shared.1.{part}"], first[f"shared.1.{part}"])
        assert torch.equal(mean[f"shared.1.{part}"], blocks[3])
    for name in ("blocks.2.norm1.weight", "cls_token", "pos_embed", "norm.bias", "head.weight"):
        assert torch.equal(mean[name], own[name])
    assert torch.equal(mean["blocks.2.attn.after.weight"], torch.eye(3).double())


def test_norms_can_be_shared_too():
    _, model = plain()
    found = made(model, share="all", separate_norms=False, init="mean")
    own = [block.norm2.bias for block in model.blocks]
    torch.testing.assert_close(found["shared.0.norm2.bias"], sum(own) / 4)
    assert not any(name.startswith("blocks.") and "norm" in name for name in found)


def test_a_pattern_that_does_not_divide_the_blocks_is_refused():
    section, _ = plain()
    with pytest.raises(
        IncompatibleWeights, match=r"4 blocks has no such twin.*one of 1, 2, 4, 'all'"
    ):
        twin(Minivit(share=3), section)
