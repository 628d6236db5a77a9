"""The projection head: published counts, weight norm, and prototypes that do not learn."""

import pytest
import torch
from torch.nn import functional as F

from vitarium.core.devices import meta_device
from vitarium.objectives.self_distillation._head import ProjectionHead


def head(width=6, prototypes=10, hidden_dim=8, bottleneck_dim=4, layers=3, trains_gain=False):
    sizes = {"hidden_dim": hidden_dim, "bottleneck_dim": bottleneck_dim, "layers": layers}
    return ProjectionHead(width, prototypes=prototypes, trains_gain=trains_gain, **sizes)


@pytest.mark.parametrize(
    ("width", "count"), [(192, 21_958_912), (384, 22_352_128), (768, 23_138_560)]
)
def test_counts_of_the_published_heads(width, count):
    with meta_device():
        published = head(width, 65_536, 2048, 256)
    assert sum(parameter.numel() for parameter in published.parameters()) == count


def test_logits_are_gains_times_cosines_with_prototypes():
    module, features = head(trains_gain=True), torch.randn(5, 6)
    with torch.no_grad():
        module.prototypes.gain.uniform_(0.5, 2)
    bottleneck, prototypes = module.mlp(features), module.prototypes
    cosines = F.cosine_similarity(bottleneck[:, None], prototypes.direction[None], dim=2)
    torch.testing.assert_close(module(features), cosines * prototypes.gain.T)


def test_initial_weights_are_small_and_prototypes_have_length_1():
    module = head(64, 32, 64, 16)
    linear = [layer for layer in module.mlp if hasattr(layer, "weight")]
    assert len(linear) == 3
    assert all(0.015 < layer.weight.std() < 0.025 and not layer.bias.any() for layer in linear)
    assert torch.equal(module.prototypes.gain, torch.ones(32, 1))
    assert not module.prototypes.gain.requires_grad


def test_prototypes_that_do_not_learn_get_no_gradient_and_keep_their_direction():
    module, features = head(trains_gain=True), torch.randn(5, 6)
    module.prototypes.learns.fill_(False)
    direction = F.normalize(module.prototypes.direction.detach().clone(), dim=1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        module(features).square().sum().backward()
        optimizer.step()
    assert not module.prototypes.direction.grad.any()
    assert not module.prototypes.gain.grad.any()
    assert module.mlp[0].weight.grad.any()
    torch.testing.assert_close(F.normalize(module.prototypes.direction, dim=1), direction)


def test_one_layer_is_linear():
    assert len(head(layers=1).mlp) == 1
