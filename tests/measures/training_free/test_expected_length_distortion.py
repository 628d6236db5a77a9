"""Length distortion: a linear network's in closed form, and what it does not depend on."""

import pytest
import torch
from torch import nn

from vitarium import create_model
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel


class LinearFeatures(nn.Module):
    """Features A x of pixels x."""

    def __init__(self, matrix):
        super().__init__()
        self.layer = nn.Linear(*reversed(matrix.shape), bias=False)
        self.layer.weight.data = matrix

    def forward_features(self, images):
        return self.layer(images.flatten(1))

    def forward_head(self, features, pre_logits=False):
        return features


@pytest.fixture
def matrix():
    return torch.randn(5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def distortion(model, examples, **settings):
    measured = choose("measure", "expected_length_distortion", **settings)
    return measured(EvalModel("a@0", model.eval(), examples))[""]


def test_of_a_linear_network_it_is_the_speed_of_its_image_of_the_circle(examples, matrix):
    # by many planes and points: the mean of |A u| over directions u of the sphere, here sampled
    directions = torch.randn(20000, 64, dtype=torch.float64, generator=torch.Generator())
    directions /= directions.norm(dim=1, keepdim=True)
    expected = (directions @ matrix.T).norm(dim=1).mean().item()
    measured_distortion = distortion(LinearFeatures(matrix), examples, curves=400)
    assert measured_distortion == pytest.approx(expected, rel=0.02)


def test_of_orthogonal_directions_it_is_one(examples):
    turn = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0]
    assert distortion(LinearFeatures(turn), examples, curves=2) == pytest.approx(1)


def test_it_grows_with_a_layers_weights_and_not_with_a_turn_of_the_output(examples, matrix):
    once = distortion(LinearFeatures(matrix), examples)
    assert distortion(LinearFeatures(3 * matrix), examples) == pytest.approx(3 * once)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert distortion(LinearFeatures(turn @ matrix), examples) == pytest.approx(once)
    radius = distortion(LinearFeatures(matrix), examples, radius=7.0)
    assert radius == pytest.approx(once)


def test_a_derivative_of_a_vision_transformer_is_that_of_differences(subject):
    """Along one circle, by points close to each other."""
    from vitarium.architectures.features import features
    from vitarium.measures.training_free._features import without_norms

    settings = {"curves": 1, "points": 400}
    measured_distortion = distortion(subject.model, subject.examples, **settings)
    model = without_norms(subject.model, last_alone=False).double()
    from vitarium.core.seeds import derive

    noise = torch.Generator().manual_seed(derive(0, "expected_length_distortion"))
    size = torch.Size(subject.examples.input_size)
    plane = torch.linalg.qr(torch.randn(size.numel(), 2, generator=noise, dtype=torch.float64))[0]
    angles = torch.arange(401, dtype=torch.float64) * (2 * torch.pi / 400)
    circle = torch.stack([angles.cos(), angles.sin()], 1) @ plane.T
    with torch.no_grad():
        path = features(model, circle.unflatten(1, size))
    length = path.diff(dim=0).norm(dim=1).sum().item()
    assert measured_distortion == pytest.approx(length / (2 * torch.pi), rel=1e-3)


def test_norms_are_left_out_unless_they_are_asked_for(examples):
    model = create_model(
        "vit", num_classes=3, img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=1, num_heads=2
    )  # fmt: skip
    bare, normed = (distortion(model, examples, without_norms=choice) for choice in (True, False))
    assert bare != pytest.approx(normed, rel=1e-3)
    assert isinstance(model.blocks[0].norm1, nn.LayerNorm)  # as it was
