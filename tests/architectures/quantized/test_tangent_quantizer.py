"""The tangent quantizer, against its formula and its levels worked out by hand."""

import math

import pytest
import torch

from vitarium.architectures.quantized._quantizers import LogQuantizer, UniformQuantizer
from vitarium.architectures.quantized._tangent import TangentQuantizer


def with_curvature(bits, curvature, delta=1.0):
    quantizer = TangentQuantizer(bits).double()
    quantizer.tangent.fill_(math.tan(curvature))
    quantizer.delta.fill_(delta)
    return quantizer


def probabilities(spread, seed=0):
    logits = torch.randn(4, 50, 50, generator=torch.Generator().manual_seed(seed)).double()
    return (spread * logits).softmax(-1)


def test_its_levels_at_4_bits_are_those_of_the_formula():
    levels = with_curvature(4, 1.2).values(torch.arange(16).double())
    expected = torch.tensor([0, 0.0212, 0.0486, 0.0851, 0.1349, 0.2047, 0.302, 0.4292]).double()
    assert torch.allclose(levels[:8], expected, atol=5e-5)
    assert torch.allclose(levels, 1 - levels.flip(0), atol=1e-12)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_it_is_monotone_idempotent_and_exact_at_both_ends(bits):
    quantizer = with_curvature(bits, 1.3, delta=0.7)
    x = torch.linspace(0, 0.9, 2000).double()
    once = quantizer(x)
    assert torch.equal(quantizer(once), once)
    assert bool((once.diff() >= 0).all())
    assert len(once.unique()) == 2**bits
    assert once[0] == 0
    assert once[-1] == 0.7
    levels = quantizer.values(torch.arange(2**bits).double())
    nearest = (levels - x[:, None]).abs().min(1).values
    inside = x <= 0.7
    gaps = levels.diff().max()
    assert bool(((once - x).abs()[inside] <= gaps).all())
    assert bool(((once - x).abs()[inside] >= nearest[inside] - 1e-12).all())


def test_without_curvature_its_steps_are_equal():
    quantizer, uniform = with_curvature(5, 1e-4), UniformQuantizer(5).double()
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double()
    uniform.scale.fill_(1 / 31)
    uniform.zero_point.fill_(0)
    assert torch.allclose(quantizer(x), uniform(x), atol=1e-7)


def test_the_fit_is_the_best_of_its_candidates():
    x = probabilities(4.0)
    quantizer = TangentQuantizer(4).double()
    quantizer.fit(x)
    best = float(quantizer.error(x))
    for curvature in (0.1, 0.5, 1.0, 1.5):
        assert best <= float(with_curvature(4, curvature, float(x.max())).error(x))


@pytest.mark.parametrize(("spread", "other"), [(4.0, "log"), (4.0, "uniform"), (1.0, "uniform")])
def test_what_peaked_attention_gives_is_nearer_than_with_others(spread, other):
    attention = probabilities(spread)
    values = torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(1)).double()
    tangent = TangentQuantizer(4).double()
    compared = (LogQuantizer(4) if other == "log" else UniformQuantizer(4)).double()
    errors = []
    for quantizer in (tangent, compared):
        quantizer.fit(attention)
        errors.append(float((quantizer(attention) @ values - attention @ values).norm()))
    assert errors[0] < errors[1]


def test_gradients_pass_straight_through_in_range_alone():
    quantizer = with_curvature(4, 1.2, delta=0.5)
    x = torch.tensor([0.1, 0.3, 0.8]).double().requires_grad_()
    quantizer(x).sum().backward()
    assert x.grad[:2].tolist() == pytest.approx([1.0, 1.0], rel=0.2)
    assert x.grad[2] == 0
