"""Linear attention: keys and values first is the attention of mapped queries and keys."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.attention._kernelized import (
    FEATURE_MAPS,
    attention_weights,
    linear_attention,
)
from vitarium.architectures.attention.linear_attention import (
    LinearAttention,
    LinearAttentionDeclaration,
)
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.evaluation.attention import watch

SIZES = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 3}
MAPS = sorted(FEATURE_MAPS)


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mapped(name):
    """Queries and keys after the map, and values: [2, 3, 7, 4]"""
    map_query, map_key = FEATURE_MAPS[name]
    return (
        map_query(drawn(2, 3, 7, 4, seed=1)),
        map_key(drawn(2, 3, 7, 4, seed=2)),
        drawn(2, 3, 7, 4),
    )


def attention(name, **settings):
    module = LinearAttention(12, 3, **settings).double()
    module.feature_map, module.min_denominator = name, 1e-6
    return module


def brute_force(query, key, value):
    """Token by token, from similarities of mapped queries and keys."""
    outputs = torch.zeros_like(value)
    for i in range(query.shape[-2]):
        total, mixed = 0.0, 0.0
        for j in range(query.shape[-2]):
            similarity = (query[..., i, :] * key[..., j, :]).sum(-1, keepdim=True)
            total, mixed = total + similarity, mixed + similarity * value[..., j, :]
        outputs[..., i, :] = mixed / total.clamp_min(1e-6)
    return outputs


@pytest.mark.parametrize("name", MAPS)
def test_keys_and_values_first_is_attention_by_similarities(name):
    query, key, value = mapped(name)
    outputs = linear_attention(query, key, value, 1e-6)
    torch.testing.assert_close(outputs, brute_force(query, key, value), rtol=0, atol=1e-12)
    weights = attention_weights(query, key, 1e-6)
    torch.testing.assert_close(outputs, weights @ value, rtol=0, atol=1e-12)
    assert (weights >= 0).all()


@pytest.mark.parametrize("name", ["elu1", "softmax"])
def test_rows_of_weights_sum_to_1(name):
    query, key, _ = mapped(name)
    sums = attention_weights(query, key, 1e-6).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_a_query_that_relu_makes_zero_reads_nothing():
    query, key, value = mapped("relu")
    query[:, :, 2] = 0
    outputs = linear_attention(query, key, value, 1e-6)
    assert (outputs[:, :, 2] == 0).all()
    assert outputs.isfinite().all()


def test_maps_are_those_of_their_papers():
    numbers = drawn(5, 4)
    query, key = (feature_map(numbers) for feature_map in FEATURE_MAPS["elu1"])
    expected = torch.where(numbers > 0, numbers + 1, numbers.exp())
    torch.testing.assert_close(query, expected)
    assert torch.equal(query, key)
    query, key = (feature_map(numbers) for feature_map in FEATURE_MAPS["softmax"])
    torch.testing.assert_close(query.sum(-1), torch.ones(5).double())
    torch.testing.assert_close(key.sum(-2), torch.ones(4).double())


@pytest.mark.parametrize("name", MAPS)
def test_a_module_computes_the_same_with_its_weights_looked_at(name):
    module, tokens = attention(name), drawn(2, 7, 12)
    expected = module(tokens)
    module.fused_attn = False
    torch.testing.assert_close(module(tokens), expected, rtol=0, atol=1e-12)
    by_hand = module.qkv(tokens).reshape(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4)
    query, key = (
        feature_map(part) for feature_map, part in zip(FEATURE_MAPS[name], by_hand, strict=False)
    )
    mixed = brute_force(query, key, by_hand[2]).transpose(1, 2).reshape(2, 7, 12)
    torch.testing.assert_close(F.linear(mixed, module.proj.weight, module.proj.bias), expected)


@pytest.mark.parametrize("name", MAPS)
def test_the_order_of_tokens_does_not_count(name):
    module, tokens, order = attention(name), drawn(2, 7, 12), torch.randperm(7)
    torch.testing.assert_close(module(tokens[:, order]), module(tokens)[:, order])


@pytest.mark.parametrize(("fused", "growth"), [(True, 2), (False, 4)])
def test_the_cost_is_linear_in_the_number_of_tokens(fused, growth):
    def cost(tokens):
        query, key, value = (torch.ones(1, 1, tokens, 4) for _ in range(3))
        module = attention("relu")
        module.fused_attn = fused
        with FlopCounterMode(display=False) as counter:
            module.attend(query, key, value)
        return counter.get_total_flops()

    assert cost(64) == growth * cost(32) > 0


def test_it_has_the_tensors_of_a_vit():
    with meta_device():
        count = sum(p.numel() for p in create_model("linear_attention").parameters())
    assert count == 5_717_416
    torch.manual_seed(1)
    vit = create_model("vit", num_classes=3, **SIZES)
    torch.manual_seed(1)
    model = create_model("linear_attention", num_classes=3, **SIZES)
    assert all(torch.equal(tensor, vit.state_dict()[n]) for n, tensor in model.state_dict().items())
    assert vit.state_dict().keys() == model.state_dict().keys()


def test_measures_of_attention_see_its_weights():
    model = create_model("linear_attention", num_classes=3, **SIZES)
    weights_of = {}
    watch(model, torch.randn(4, 1, 8, 8), weights_of.__setitem__)
    assert [list(weights.shape) for weights in weights_of.values()] == [[4, 3, 17, 17]] * 2


@pytest.mark.parametrize("name", MAPS)
def test_declared_symmetries_change_nothing(name):
    model = create_model("linear_attention", num_classes=3, feature_map=name, **SIZES).double()
    model, images = random_moves.scrambled(model, 0).double(), drawn(3, 1, 8, 8)
    symmetries = LinearAttentionDeclaration.symmetries(model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(1))
    expected = model(images)
    model.load_state_dict(moved(symmetries, model.state_dict(), moves))
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-10)


def test_channels_of_queries_and_keys_cannot_be_mixed():
    model = create_model("linear_attention", num_classes=3, **SIZES)
    groups = LinearAttentionDeclaration.symmetries(model).groups
    assert groups["blocks.0.attn.qk"].maps == "permutation"
    assert groups["blocks.0.attn.vo"].maps == "invertible"


def test_dropout_of_probabilities_is_refused():
    with pytest.raises(InvalidConfig, match="attn_drop_rate drops probabilities"):
        create_model("linear_attention", attn_drop_rate=0.1)
