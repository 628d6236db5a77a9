"""Experts for tokens with routers for tasks: gates, balance, counts, and what tasks share."""

import pytest
import torch

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.experts._routing import route
from vitarium.architectures.experts.task_moe import balance_of, squared_variation
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import get

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 4, "num_heads": 2}


def build(**settings):
    chosen = {"num_experts": 4, "top_k": 2, **SIZES, **settings}
    return random_moves.scrambled(create_model("task_moe", num_classes=3, **chosen), 0).double()


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=generator)


def tokens():
    return torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_token_is_the_sum_of_its_likeliest_experts_times_their_probabilities(k):
    layer = build(top_k=k).blocks[1].mlp
    outputs = layer(tokens()).flatten(0, 1)
    rows = tokens().flatten(0, 1)
    probabilities = torch.softmax(rows @ layer.routers[0].weight.T, 1)
    for row, shares, output in zip(rows, probabilities, outputs, strict=True):
        best = shares.argsort(descending=True)[:k].tolist()
        expected = sum(shares[e] * layer.experts[e](row) for e in best)
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


def test_experts_stand_in_every_other_block():
    model = build()
    assert [hasattr(block.mlp, "experts") for block in model.blocks] == [False, True, False, True]


def test_equal_experts_are_one_times_the_sum_of_the_gates():
    layer = build().blocks[1].mlp
    for expert in layer.experts[1:]:
        expert.load_state_dict(layer.experts[0].state_dict())
    rows = tokens()
    gates = torch.softmax(rows @ layer.routers[0].weight.T, -1).topk(2, -1).values.sum(-1)
    expected = gates.unsqueeze(-1) * layer.experts[0](rows)
    torch.testing.assert_close(layer(rows), expected, rtol=0, atol=1e-12)


def test_an_expert_to_which_no_token_is_sent_has_no_gradient():
    model = build(top_k=1)
    layer = model.blocks[1].mlp.train()
    rows = tokens()[:1, :3]
    chosen = set((rows @ layer.routers[0].weight.T).argmax(-1).flatten().tolist())
    layer(rows).square().sum().backward()
    assert 0 < len(chosen) < 4
    for number, expert in enumerate(layer.experts):
        gradient = expert.fc1.weight.grad
        assert (gradient is not None and bool(gradient.any())) == (number in chosen)
    assert layer.routers[0].weight.grad.any()


def test_a_single_expert_of_the_mlps_width_is_the_plain_vit():
    model = build(num_experts=1, top_k=1, expert_ratio=4.0)
    plain = create_model("vit", num_classes=3, **SIZES).double().eval()
    weights = {n.replace("experts.0.", ""): t for n, t in model.state_dict().items()}
    plain.load_state_dict({n: t for n, t in weights.items() if "routers" not in n})
    torch.testing.assert_close(model(images()), plain(images()), rtol=0, atol=1e-12)


def test_tasks_share_experts_and_have_routers_of_their_own():
    first, second = (build(num_tasks=2, task=task) for task in (0, 1))
    assert all(torch.equal(t, second.state_dict()[n]) for n, t in first.state_dict().items())
    assert not torch.allclose(first(images()), second(images()))
    second.train()(images()).square().sum().backward()
    layer = second.blocks[1].mlp
    assert layer.routers[0].weight.grad is None
    assert not layer.routers[0].weight.requires_grad
    assert layer.routers[1].weight.grad.any()
    alone = build()
    weights = second.state_dict()
    own = {
        n.replace("routers.1", "routers.0"): t for n, t in weights.items() if "routers.0" not in n
    }
    alone.load_state_dict(own)
    assert torch.equal(alone(images()), second.eval()(images()))


def test_the_balance_loss_is_the_squared_variation_of_importance_and_load():
    model = build(balance=0.01).train()
    model(images())
    expected = 0.0
    for block in (model.blocks[1], model.blocks[3]):
        balance = block.mlp.decision
        assert balance.loads.sum() == 2 * 3 * 5
        for values in (balance.importance, balance.loads.double()):
            expected += values.var() / values.mean() ** 2
    auxiliary = model.auxiliary_loss(torch.ones(3, 3))
    assert abs(auxiliary.value.item() - 0.01 * expected.item()) < 1e-6
    assert set(auxiliary.metrics) == {"balance_loss", "experts_1", "experts_3"}
    auxiliary.value.backward()
    assert model.blocks[1].mlp.routers[0].weight.grad.any()
    assert model.auxiliary_loss(torch.ones(3, 3)).metrics == {}


def test_even_use_has_no_loss():
    assert squared_variation(torch.full((4,), 3.0)) == 0
    assert squared_variation(torch.tensor([2.0])) == 0
    assert torch.isclose(squared_variation(torch.tensor([4.0, 0.0])), torch.tensor(2.0))


def test_the_smooth_load_is_the_expected_load_of_noise_that_is_drawn_anew():
    torch.manual_seed(0)
    clean, noise = torch.randn(6, 4, dtype=torch.float64), 0.5
    noisy = clean + noise * torch.randn_like(clean)
    smooth = balance_of(route(noisy, 2), clean, noise).smooth_load
    draws = 20000
    for expert in range(4):
        others = torch.cat([noisy[:, :expert], noisy[:, expert + 1 :]], 1)
        needed = others.topk(2, dim=1).values[:, 1]  # to be one of the two largest
        anew = clean[:, expert] + noise * torch.randn(draws, 6, dtype=torch.float64)
        assert abs((anew > needed).double().mean(0).sum() - smooth[expert]) < 0.05


def test_noise_is_drawn_in_training_alone():
    model = build(router_noise=1.0)
    assert torch.equal(model(images()), model(images()))
    model.train()
    torch.manual_seed(0)
    first = model(images())
    torch.manual_seed(0)
    assert torch.equal(model(images()), first)
    assert not torch.equal(model(images()), first)


@pytest.mark.parametrize(
    ("preset", "expert", "count"),
    [
        # DeiT's, with 16 experts and a router for each MLP of six blocks
        ("m3vit_tiny_patch16_224", 74_112, 5_717_416 + 6 * (16 * (74_112 + 192) - 295_872)),
        ("m3vit_small_patch16_224", 295_680, 22_050_664 + 6 * (16 * (295_680 + 384) - 1_181_568)),
        ("edge_moe_tiny_patch16_224", 148_032, 5_717_416 + 6 * (16 * (148_032 + 192) - 295_872)),
    ],
)
def test_it_has_the_numbers_of_parameters_that_its_sizes_give(preset, expert, count):
    with meta_device():
        model = create_model(preset)
        experts = model.blocks[1].mlp.experts
    assert sum(p.numel() for p in experts[0].parameters()) == expert
    assert len(experts) == 16
    assert sum(p.numel() for p in model.parameters()) == count


def test_routers_are_drawn_like_other_linear_layers():
    torch.manual_seed(0)
    model = create_model("task_moe", **SIZES | {"embed_dim": 64, "num_heads": 4})
    assert abs(model.blocks[1].mlp.routers[0].weight.std().item() - 0.02) < 0.003
    assert abs(model.blocks[1].mlp.experts[3].fc1.weight.std().item() - 0.02) < 0.003


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"top_k": 5}, "top_k 5 is more than num_experts 4"),
        ({"num_tasks": 2, "task": 2}, "task 2 is none of num_tasks 2"),
        ({"depth": 1}, "depth 1 has no second block"),
        ({"expert_ratio": 0.05}, "expert_ratio 0.05 leaves an MLP of width 8 no hidden unit"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, fault):
    with pytest.raises(InvalidConfig, match=fault):
        build(**settings)


def test_moving_its_symmetries_keeps_its_outputs():
    model, other = build(), build()
    symmetries = get("architecture", "task_moe").facts["symmetries"](model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    other.load_state_dict(moved(symmetries, model.state_dict(), moves))
    name = "blocks.1.mlp.experts.1.fc1.weight"
    assert not torch.equal(other.state_dict()[name], model.state_dict()[name])
    torch.testing.assert_close(other(images()), model(images()), rtol=0, atol=1e-10)
