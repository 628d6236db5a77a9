"""The tangent kernel: of a linear network in closed form; at least one; not of equal images."""

import pytest
import torch
from torch import nn

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel
from vitarium.measures.training_free.ntk_condition import weight_gradients


class Features(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward_features(self, images):
        return self.layers(images.flatten(1))

    def forward_head(self, features, pre_logits=False):
        return features


def condition(model, examples, **settings):
    return choose("measure", "ntk_condition", **settings)(EvalModel("a@0", model.eval(), examples))


def test_of_a_linear_layer_the_kernel_is_that_of_the_pixels(examples):
    layer = nn.Linear(64, 7)
    pixels = torch.cat([b.images for b in examples.first(8).batches(8)]).flatten(1).double()
    kernel = 7 * pixels @ pixels.T  # the gradient after each row of weights is the image
    expected = torch.linalg.cond(kernel).item()
    values = condition(Features(layer), examples, num_images=8)
    assert values[""] == pytest.approx(expected, rel=1e-3)
    assert values["trace"] == pytest.approx(kernel.diagonal().mean().item(), rel=1e-5)


def test_the_kernel_is_positive_and_its_condition_at_least_one(subject):
    gradients = weight_gradients(subject, 6)
    kernel = gradients @ gradients.T
    torch.testing.assert_close(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel)[0] > 0
    assert condition(subject.model, subject.examples, num_images=6)[""] >= 1
    assert all(not p.requires_grad for p in subject.model.parameters())


def test_a_constant_network_has_none(examples):
    layer = nn.Linear(64, 7)
    model = Features(nn.Sequential(layer, nn.ReLU()))
    layer.bias.data.fill_(-1e6)
    with pytest.raises(NotApplicable, match="singular"):
        condition(model, examples, num_images=4)
