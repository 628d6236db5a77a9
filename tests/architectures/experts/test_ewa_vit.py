"""Experts: how they share tokens, how they are averaged, and the one MLP that they are in use."""

import pytest
import torch
from torch import nn

from vitarium import create_model
from vitarium.architectures.experts.ewa_vit import Experts

SIZES = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 8, "num_heads": 2}


def linears(count, width=6, seed=0):
    """Experts that are different linear layers."""
    torch.manual_seed(seed)
    experts = Experts(nn.Linear(width, width), count, share_rate=0.25)
    for parameter in experts.parameters():
        nn.init.normal_(parameter)
    return experts


@pytest.mark.parametrize("count", [2, 3, 4])
def test_in_training_each_token_goes_to_one_expert_and_each_expert_gets_as_many(count):
    experts = linears(count).train()
    tokens = torch.randn(5, 7, 6)
    made = experts(tokens)
    by_expert = torch.stack([expert(tokens) for expert in experts.experts])
    used = torch.isclose(by_expert, made, atol=1e-6).all(-1)
    assert (used.sum(0) == 1).all()
    shares = used.sum((1, 2))
    assert shares.sum() == 35
    assert shares.max() - shares.min() <= 1
    assert shares.min() == 35 // count


def test_the_parts_are_drawn_anew_from_torchs_generator():
    experts, tokens = linears(4).train(), torch.randn(2, 9, 6)

    def drawn(seed):
        torch.manual_seed(seed)
        return experts(tokens)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_each_token_is_as_likely_with_each_expert():
    experts, tokens = linears(3).train(), torch.randn(2, 3, 6)
    by_expert = torch.stack([expert(tokens) for expert in experts.experts])
    torch.manual_seed(1)
    draws = [torch.isclose(by_expert, experts(tokens), atol=1e-6).all(-1) for _ in range(900)]
    rates = torch.stack(draws).double().mean(0)
    assert ((rates - 1 / 3).abs() < 0.08).all()  # five deviations


def test_in_use_the_experts_are_the_one_that_has_their_mean():
    experts, tokens = linears(3).eval(), torch.randn(2, 5, 6)
    weight = sum(expert.weight.double() for expert in experts.experts) / 3
    bias = sum(expert.bias.double() for expert in experts.experts) / 3
    expected = tokens.double() @ weight.T + bias
    assert torch.allclose(experts(tokens).double(), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_after_a_step_experts_move_to_their_mean_by_the_share_rate(rate):
    experts = linears(4).train()
    experts.share_rate = rate
    before = torch.stack([expert.weight.detach().double() for expert in experts.experts])
    experts.after_step()
    after = torch.stack([expert.weight.detach().double() for expert in experts.experts])
    assert torch.allclose(after, (1 - rate) * before + rate * before.mean(0), atol=1e-6)
    assert torch.allclose(after.mean(0), before.mean(0), atol=1e-6)


def test_frozen_experts_stay():
    experts = linears(4).eval()
    before = [expert.weight.clone() for expert in experts.experts]
    experts.after_step()
    assert all(torch.equal(e.weight, b) for e, b in zip(experts.experts, before, strict=True))


@pytest.mark.parametrize(
    ("depth", "which", "places"),
    [
        (1, "every_other", [0]),
        (4, "every_other", [1, 3]),
        (5, "every_other", [0, 2, 4]),
        (3, "all", [0, 1, 2]),
    ],
)
def test_experts_stand_in_the_chosen_blocks(depth, which, places):
    model = create_model("ewa_vit", depth=depth, expert_blocks=which, num_experts=3, **SIZES)
    found = [n for n, block in enumerate(model.blocks) if isinstance(block.mlp, Experts)]
    assert found == places
    assert all(len(model.blocks[n].mlp.experts) == 3 for n in found)


def test_before_training_it_is_the_vit_of_the_same_seed():
    images = torch.randn(3, 1, 8, 8)
    outputs = []
    for name in ("vit", "ewa_vit"):
        torch.manual_seed(3)
        model = create_model(name, num_classes=4, depth=2, **SIZES)
        outputs.append(model.eval()(images))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)


def test_where_experts_are_equal_the_partition_changes_nothing():
    model = create_model("ewa_vit", num_classes=4, depth=2, **SIZES)
    images = torch.randn(3, 1, 8, 8)
    assert torch.allclose(model.train()(images), model.eval()(images), atol=1e-6)
