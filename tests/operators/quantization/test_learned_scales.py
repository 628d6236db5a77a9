"""Scales of activations that are learned."""

import pytest
import torch
from torch import nn

from vitarium.architectures.quantized._layers import QuantizedLinear
from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.operators.quantization._learned_scales import LearnedScale, fixed_scales, learn_scales


def a_quantizer(bits=4):
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    fitted = UniformQuantizer(bits).double()
    fitted.fit(x)
    return x, fitted


def test_it_starts_as_what_was_fitted_and_its_gradient_is_that_of_lsq():
    x, fitted = a_quantizer()
    learned = LearnedScale(fitted)
    assert torch.equal(learned(x), fitted(x))
    x = 2 * x  # so that some are clipped
    ratio = x / fitted.scale
    codes = ratio.round() + fitted.zero_point
    x, ratio, codes = (t[(codes != 0) & (codes != 15)] for t in (x, ratio, codes))
    learned(x).sum().backward()
    inside = (codes > 0) & (codes < 15)
    assert 0 < int(inside.sum()) < len(x)
    clipped = codes.clamp(0, 15) - fitted.zero_point
    expected = torch.where(inside, ratio.round() - ratio, clipped).sum()
    assert float(learned.scale.grad) == pytest.approx(float(expected))


def test_entries_pass_as_they_are_as_often_as_asked_for():
    x, fitted = a_quantizer(3)
    learned = LearnedScale(fitted, drop=0.5)
    torch.manual_seed(0)
    given = learned(x)
    passed = given == x
    assert 0.35 < float(passed.float().mean()) < 0.65
    assert torch.equal(given[~passed], fitted(x)[~passed])


def test_a_scale_stays_positive():
    _, fitted = a_quantizer()
    learned = LearnedScale(fitted)
    with torch.no_grad():
        learned.scale.fill_(-1)
    learned.bound()
    assert float(learned.scale.detach()) == pytest.approx(0.01 * float(fitted.scale))


def test_scales_of_activations_alone_learn_and_are_fixed_after():
    layer = QuantizedLinear(nn.Linear(6, 4), UniformQuantizer(4, (4, 1)), UniformQuantizer(4))
    part = nn.Sequential(layer, UniformQuantizer(3))
    before = part.state_dict()
    learned = learn_scales(part, 0.5)
    assert [type(q) for q in (layer.input, part[1])] == [LearnedScale, LearnedScale]
    assert len(learned) == 2
    assert type(layer.weight.quantizer) is UniformQuantizer
    with torch.no_grad():
        learned[1].scale.mul_(2)
    fixed_scales(part)
    after = part.state_dict()
    assert type(part[1]) is UniformQuantizer
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["1.scale"]
