"""AdaRound, against its definition."""

import pytest
import torch

from vitarium.architectures.quantized._quantizers import UniformQuantizer
from vitarium.operators.quantization._rounding import LearnedRounding, annealed_beta


def a_rounding(bits=4):
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).double()
    fitted = UniformQuantizer(bits, (3, 1)).double()
    fitted.fit(weight)
    return weight, fitted, LearnedRounding(fitted, weight)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_it_starts_at_the_weight(bits):
    weight, fitted, rounding = a_rounding(bits)
    codes = rounding.floor + rounding.zero_point
    inside = (codes >= 0) & (codes < 2**bits - 1)
    assert int(inside.sum()) >= 12
    off = (rounding(weight) - weight).abs() / fitted.scale
    assert float(off[inside].max()) < 1e-3
    assert float(off.max()) <= 0.51  # range ends, since zero points are whole numbers


def test_rounded_weights_are_neighbors_on_the_grid_and_at_the_start_the_nearest():
    weight, fitted, rounding = a_rounding()
    rounding.soft = False
    assert torch.equal(rounding(weight), fitted(weight))
    assert torch.equal(rounding.codes(weight), fitted.codes(weight))
    for value, up in ((9.0, 1), (-9.0, 0)):
        with torch.no_grad():
            rounding.raw.fill_(value)
        expected = (rounding.floor + rounding.zero_point + up).clamp(0, 15)
        assert torch.equal(rounding.codes(weight), expected)


def test_the_penalty_is_that_of_the_paper_and_zero_on_the_grid():
    weight, _, rounding = a_rounding()
    expected = sum(1 - abs(2 * h - 1) ** 3 for h in rounding.shares.flatten().tolist())
    assert float(rounding.penalty(3.0).detach()) == pytest.approx(expected)
    with torch.no_grad():
        rounding.raw.copy_(torch.where(rounding.raw > 0, 9.0, -9.0))
    assert float(rounding.penalty(2.0).detach()) == 0
    between = rounding(weight)
    rounding.soft = False
    assert torch.equal(between, rounding(weight))


def test_its_penalty_drives_all_weights_onto_the_grid():
    _, _, rounding = a_rounding()
    optimizer = torch.optim.Adam(rounding.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        rounding.penalty(2.0).backward()
        optimizer.step()
    assert set(rounding.shares.flatten().tolist()) <= {0.0, 1.0}


def test_beta_falls_from_20_to_2_after_the_warmup():
    betas = [annealed_beta(step, 10) for step in range(10)]
    assert betas[:2] == [None, None]
    assert betas[2] == 20
    assert betas[2:] == sorted(betas[2:], reverse=True)
    assert annealed_beta(10, 10) == 2
