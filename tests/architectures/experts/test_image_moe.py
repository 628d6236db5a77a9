"""Experts for images: one choice for all tokens, routers that are guided, and the counts."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.experts._routing import experts_in_use, load, mixed, route
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import get

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 3, "num_heads": 2}


def build(seed=0, **settings):
    chosen = {"num_experts": 4, "expert_blocks": 2, **SIZES, **settings}
    model = create_model("image_moe", num_classes=settings.pop("num_classes", 3), **chosen)
    return random_moves.scrambled(model, seed).double()


def images(count=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)


def inputs_of(layer, model, x):
    """What a layer is given, and what it returns."""
    seen = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append((*args, output)))
    model(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_an_image_is_the_sum_of_its_likeliest_experts_times_their_probabilities(k):
    model = build(top_k=k)
    layer = model.blocks[2].mlp
    tokens, outputs = inputs_of(layer, model, images())
    probabilities = torch.softmax(tokens.mean(1) @ layer.router.weight.T, 1)
    for image, shares, output in zip(tokens, probabilities, outputs, strict=True):
        best = shares.argsort(descending=True)[:k].tolist()
        expected = sum(shares[e] * layer.experts[e](image) for e in best)
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)


def test_the_order_of_tokens_does_not_change_the_experts_of_an_image():
    model = build()
    layer = model.blocks[1].mlp.train()
    tokens, _ = inputs_of(layer, model, images())
    layer(tokens)
    chosen = layer.decision.chosen
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))
    outputs = layer(tokens[:, order])
    assert torch.equal(layer.decision.chosen, chosen)
    torch.testing.assert_close(outputs, layer(tokens)[:, order], rtol=0, atol=1e-12)
    assert chosen.shape == (6, 2)  # of images, not of tokens


def test_equal_experts_are_the_mlp_times_the_sum_of_the_gates_that_are_kept():
    model = build()
    layer = model.blocks[2].mlp.train()
    for expert in layer.experts[1:]:
        expert.load_state_dict(layer.experts[0].state_dict())
    tokens, _ = inputs_of(layer, model, images())
    outputs = layer(tokens)
    gates = layer.decision.gates.sum(1)[:, None, None]
    assert (gates < 1).all()
    torch.testing.assert_close(outputs, gates * layer.experts[0](tokens), rtol=0, atol=1e-12)


def test_a_single_expert_is_the_mlp_of_the_plain_vit():
    model = build(num_experts=1, top_k=1)
    plain = create_model("vit", num_classes=3, **SIZES).double().eval()
    weights = {n.replace("experts.0.", ""): t for n, t in model.state_dict().items()}
    plain.load_state_dict({n: t for n, t in weights.items() if "router" not in n})
    torch.testing.assert_close(model(images()), plain(images()), rtol=0, atol=1e-12)


def test_an_expert_that_is_not_chosen_has_no_gradient():
    model = build(top_k=1).train()
    model(images()).square().sum().backward()
    for number in model.routed:
        layer = model.blocks[number].mlp
        chosen = set(layer.decision.chosen.flatten().tolist())
        assert 0 < len(chosen) <= 4
        for number, expert in enumerate(layer.experts):
            assert bool(expert.fc1.weight.grad.any()) == (number in chosen)
        assert layer.router.weight.grad.any()


@pytest.mark.parametrize("k", [1, 3])
def test_loads_sum_to_k_times_the_rows_and_say_how_many_experts_are_in_use(k):
    torch.manual_seed(0)
    routing = route(torch.randn(50, 5), k)
    assert load(routing).sum() == k * 50
    assert experts_in_use(torch.tensor([7, 0, 0])) == 1
    assert torch.isclose(experts_in_use(torch.tensor([7, 7, 0])), torch.tensor(2.0))


def test_what_is_exported_computes_the_same_without_looking_at_the_choice(monkeypatch):
    torch.manual_seed(0)
    experts = [torch.nn.Linear(6, 6).double() for _ in range(4)]
    rows = torch.randn(7, 3, 6, dtype=torch.float64)
    routing = route(torch.randn(7, 4, dtype=torch.float64), 2)
    expected = mixed(rows, routing, experts)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(mixed(rows, routing, experts), expected, rtol=0, atol=1e-12)


def test_the_router_loss_is_the_cross_entropy_with_the_super_classes():
    model = build(super_classes=(2, 0, 2), guidance=0.3).train()
    x = images()
    model(x)
    logits = [model.blocks[n].mlp.decision.logits for n in model.routed]
    targets = torch.tensor(
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 0.25], [0, 1, 0], [1, 0, 0]]
    )
    by_expert = torch.stack([targets[:, 1], 0 * targets[:, 0], targets[:, [0, 2]].sum(1)], 1)
    by_expert = F.pad(by_expert, (0, 1))
    expected = (
        sum(-(by_expert * F.log_softmax(each.float(), 1)).sum(1).mean() for each in logits) / 2
    )
    auxiliary = model.auxiliary_loss(targets)
    torch.testing.assert_close(auxiliary.value, 0.3 * expected)
    torch.testing.assert_close(auxiliary.metrics["router_loss"], expected)
    right = [(each.argmax(1) == by_expert.argmax(1)).float().mean() for each in logits]
    assert auxiliary.metrics["router_accuracy"] == sum(right) / 2
    assert {"experts_1", "experts_2"} < auxiliary.metrics.keys()
    assert model.auxiliary_loss(targets).metrics == {}  # the graph was let go


def test_views_of_an_image_have_its_super_class():
    model = build(super_classes=(2, 0, 2)).train()
    targets = F.one_hot(torch.tensor([0, 1, 2]), 3).float()
    model(images())
    two_views = model.auxiliary_loss(targets).value
    model(images())
    torch.testing.assert_close(two_views, model.auxiliary_loss(targets.repeat(2, 1)).value)


def test_without_super_classes_and_in_eval_mode_nothing_is_added():
    model = build().train()
    model(images())
    auxiliary = model.auxiliary_loss(torch.ones(6, 3) / 3)
    assert auxiliary.value == 0
    assert set(auxiliary.metrics) == {"experts_1", "experts_2"}
    model.eval()(images())
    assert model.auxiliary_loss(torch.ones(6, 3) / 3).metrics == {}


def test_a_model_is_copied_without_the_graph_of_its_last_images():
    model = build().train()
    model(images())
    copied = deepcopy(model)
    assert copied.blocks[2].mlp.decision is None
    assert torch.equal(copied(images()), model(images()))


def test_it_has_the_published_numbers_of_parameters():
    with meta_device():
        model = create_model("mobile_vmoe_tiny_patch16_224")
        count = sum(p.numel() for p in model.parameters())
        experts = sum(p.numel() for p in model.blocks[11].mlp.experts[0].parameters())
        routers = sum(model.blocks[n].mlp.router.weight.numel() for n in (10, 11))
    assert count == 11_046_952
    assert (experts, routers) == (295_872, 3_840)
    assert count - routers - 2 * 8 * experts == 6_309_160  # what computes an image


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"top_k": 5}, "top_k 5 is more than num_experts 4"),
        ({"expert_blocks": 4}, "expert_blocks 4 is more than depth 3"),
        (
            {"super_classes": (0, 4, 1)},
            "super_classes name expert 4, and the last of num_experts 4",
        ),
        (
            {"router_input": "token", "class_token": False, "global_pool": "avg"},
            "router_input 'token' needs the class token",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, fault):
    with pytest.raises(InvalidConfig, match=fault):
        build(**settings)


def test_super_classes_of_other_classes_are_refused():
    with pytest.raises(InvalidInput, match="super_classes has 2 numbers, and the model 3 outputs"):
        build(super_classes=(0, 1))
    model = build(super_classes=(0, 1, 2)).train()
    model(images())
    with pytest.raises(InvalidInput, match="3 numbers, and the data 5 classes"):
        model.auxiliary_loss(torch.ones(6, 5))


def test_moving_its_symmetries_keeps_its_outputs():
    model, other = build(), build()
    symmetries = get("architecture", "image_moe").facts["symmetries"](model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    other.load_state_dict(moved(symmetries, model.state_dict(), moves))
    name = "blocks.2.mlp.experts.1.fc1.weight"
    assert not torch.equal(other.state_dict()[name], model.state_dict()[name])
    torch.testing.assert_close(other(images()), model(images()), rtol=0, atol=1e-10)
