"""Short paths that follow all of them: against models with fewer blocks."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from vitarium.core import seeds
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.data.batch import Batch

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 3, "num_heads": 2}


def built(name, **settings):
    with seeds.seeded(0):
        model = choose("architecture", name, **{**SIZES, **settings})(4).double()
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.arange(6) % 4
    return Batch(images, labels, F.one_hot(labels, 4).double())


def first_blocks(model, count):
    """The model with so many of its blocks, and the scales of their paths."""
    short = deepcopy(model)
    short.blocks = short.blocks[:count]
    if hasattr(short, "path_scales"):
        short.path_scales = torch.nn.Parameter(short.path_scales[: 2 * count + 1].detach())
    return short


@pytest.mark.parametrize("name", ["vit", "path_ensemble"])
def test_the_loss_is_that_of_models_of_the_first_blocks_beside_the_classes(name, batch):
    model, temperature, weight = built(name), 2.0, 0.7
    settings = {"temperature": temperature, "weight": weight}
    loss = choose("objective", "path_self_distillation", **settings)(model, batch)
    with torch.no_grad():
        outputs = model(batch.images)
        log_p = (outputs / temperature).log_softmax(1)
        divergences = []
        for count in range(3):
            log_q = (first_blocks(model, count)(batch.images) / temperature).log_softmax(1)
            divergences.append(F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))
        short = temperature**2 * sum(divergences) / 3
        expected = F.cross_entropy(outputs, batch.labels) + weight * short
    assert float(loss.value) == pytest.approx(float(expected))
    assert float(loss.metrics["short_paths"]) == pytest.approx(float(short))


def test_no_gradient_goes_to_what_short_paths_follow(batch):
    """What comes after the last short path learns from the classes alone."""
    gradients = []
    for weight in (0.0, 5.0):
        model = built("vit")
        choose("objective", "path_self_distillation", weight=weight)(model, batch).value.backward()
        gradients.append([p.grad.clone() for p in model.blocks[2].parameters()])
        first = model.blocks[0].mlp.fc1.weight.grad
    for without, with_paths in zip(*gradients, strict=True):
        torch.testing.assert_close(without, with_paths)
    assert first.abs().max() > 0


def test_models_without_such_paths_are_refused(batch):
    model = built("tome", r=1)
    with pytest.raises(InvalidInput, match="residual paths are those of a plain vit"):
        choose("objective", "path_self_distillation")(model, batch)
