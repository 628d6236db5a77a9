"""Architectures as they are built: what their symmetries change, and what a stack of them computes."""

import torch
from torch.func import functional_call, stack_module_state, vmap

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.symmetries.base import moved
from vitarium.core import registry, seeds


def build(name, seed=0, num_classes=5, **settings):
    """The architecture with its `tiny` settings and these, in float64."""
    tiny = registry.get("architecture", name).facts["tiny"]
    with seeds.seeded(seed):
        return create_model(name, num_classes=num_classes, **{**tiny, **settings}).double()


def images(model_or_size, count=3, channels=3, seed=0):
    size = (
        model_or_size if isinstance(model_or_size, int) else model_or_size.patch_embed.img_size[0]
    )
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)


@torch.no_grad()
def change_by_symmetries(name, model, x):
    """By random transforms of every group it declares: of the outputs, and how many weights move."""
    random_moves.scrambled(model, 0).double()
    symmetries = registry.get("architecture", name).facts["symmetries"](model)
    weights, before = model.state_dict(), model(x)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    transformed = moved(symmetries, weights, moves)
    count = sum(not torch.equal(transformed[n], w) for n, w in weights.items())
    after = functional_call(model, transformed, (x,))
    return ((after - before).abs().max() / before.abs().max()).item(), count


def stacked_outputs(models, x):
    """Outputs of all models [k, batch, outputs], computed as one, and gradients of their sum."""
    weights, buffers = stack_module_state(models)

    def outputs(weights, buffers):
        return functional_call(models[0], (weights, buffers), (x,))

    result = vmap(outputs, randomness="error")(weights, buffers)
    leaves = list(weights.values())
    gradients = torch.autograd.grad(result.square().sum(), leaves, materialize_grads=True)
    return result, dict(zip(weights, gradients, strict=True))


def stack_difference(models, x):
    """The largest difference of outputs or gradients of a stack from those of its models."""
    outputs, gradients = stacked_outputs(models, x)
    differences = []
    for k, model in enumerate(models):
        expected = model(x)
        names, leaves = zip(*model.named_parameters(), strict=True)
        by_name = torch.autograd.grad(expected.square().sum(), leaves, materialize_grads=True)
        differences.append((outputs[k] - expected).abs().max().item())
        for name, gradient in zip(names, by_name, strict=True):
            differences.append((gradients[name][k] - gradient).abs().max().item())
    return max(differences)
