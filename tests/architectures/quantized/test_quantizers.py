"""What every quantizer keeps to, and what each of them promises beside that."""

import math

import pytest
import torch

from vitarium.architectures.quantized._quantizers import (
    ACTIVATION_PERCENTILES,
    LogQuantizer,
    UniformQuantizer,
)
from vitarium.architectures.quantized._softmax_quantizers import (
    SOFTMAX_QUANTIZERS,
    softmax_quantizer,
)

BITS = [3, 4, 6, 8]


def probabilities(spread=3.0):
    torch.manual_seed(0)
    return (spread * torch.randn(2, 3, 17, 17, dtype=torch.float64)).softmax(-1)


def fitted(quantizer, samples):
    quantizer = quantizer.to(samples.dtype)
    quantizer.fit(samples)
    return quantizer


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", SOFTMAX_QUANTIZERS)
def test_at_most_2_to_the_bits_values_which_stay_as_they_are(name, bits):
    x = probabilities()
    quantizer = fitted(softmax_quantizer(name, bits), x)
    codes, quantized = quantizer.codes(x), quantizer(x)
    assert codes.min() >= 0
    assert codes.max() <= 2**bits - 1
    assert torch.equal(codes, codes.round())
    assert len(quantized.unique()) <= 2**bits
    torch.testing.assert_close(quantizer(quantized), quantized, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", SOFTMAX_QUANTIZERS)
def test_order_is_kept(name, bits):
    x = probabilities().flatten().sort().values
    quantized = fitted(softmax_quantizer(name, bits), x)(x)
    assert (quantized.diff() >= -1e-15).all()


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("uniform", 0.2), ("log_sqrt2", 0.8), ("twin", 0.3), ("log2", 1.0), ("shift_log2", 1.0)],
)
def test_more_bits_give_less_error(name, ratio):
    """Powers of 2 are as coarse at every width: more bits reach smaller values alone."""
    x = probabilities()
    errors = [float(fitted(softmax_quantizer(name, bits), x).error(x)) for bits in (3, 5)]
    assert errors[1] <= ratio * errors[0] + 1e-12


@pytest.mark.parametrize("bits", range(3, 9))
def test_uniform_codes_are_off_by_half_a_step_and_keep_zero(bits):
    torch.manual_seed(0)
    x = torch.randn(40, 30, dtype=torch.float64) + 0.5
    quantizer = fitted(UniformQuantizer(bits), x)
    assert float((quantizer(x) - x).abs().max()) <= quantizer.scale / 2 + 1e-12
    assert quantizer(torch.zeros(1, dtype=torch.float64)) == 0


def test_uniform_range_is_the_formula():
    x = torch.tensor([-1.0, 0.2, 2.0])
    quantizer = fitted(UniformQuantizer(4), x)
    assert quantizer.scale == pytest.approx(3 / 15)
    assert quantizer.zero_point == 5
    assert quantizer.codes(x).tolist() == [0, 6, 15]


def test_a_scale_for_each_row_is_the_scale_of_that_row():
    torch.manual_seed(0)
    weight = torch.randn(5, 40) * torch.arange(1, 6)[:, None]
    by_row = fitted(UniformQuantizer(4, (5, 1), percentiles=ACTIVATION_PERCENTILES), weight)
    for row, quantized in zip(weight, by_row(weight), strict=True):
        alone = fitted(UniformQuantizer(4, percentiles=ACTIVATION_PERCENTILES), row)
        assert torch.equal(alone(row), quantized)
    by_channel = fitted(UniformQuantizer(4, (5,), percentiles=ACTIVATION_PERCENTILES), weight.T)
    assert torch.equal(by_channel(weight.T), by_row(weight).T)


def test_channels_of_unequal_range_are_better_off_with_scales_of_their_own():
    torch.manual_seed(0)
    x = torch.randn(500, 20) * torch.logspace(-1, 1, 20)
    single, by_channel = (fitted(UniformQuantizer(4, shape), x) for shape in ((), (20,)))
    small = x[:, 0]
    errors = [float((q(x)[:, 0] - small).square().mean()) for q in (single, by_channel)]
    assert errors[1] < 0.1 * errors[0]
    assert by_channel.error(x) < 0.5 * single.error(x)


def test_a_cut_range_has_no_more_error_than_the_full_one():
    torch.manual_seed(0)
    x = torch.randn(30_000)
    x[0] = 20.0
    full, cut = (fitted(UniformQuantizer(4, percentiles=p), x) for p in ((), (0.99, 0.999)))
    assert cut.error(x) < 0.2 * full.error(x)
    x[0] = 0.0
    full, cut = (fitted(UniformQuantizer(8, percentiles=p), x) for p in ((), (0.5,)))
    assert torch.equal(cut.scale, full.scale)


@pytest.mark.parametrize("holds_zero", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_is_exact(value, holds_zero):
    x = torch.full((7,), value)
    assert torch.equal(fitted(UniformQuantizer(4, holds_zero=holds_zero), x)(x), x)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("steps", [1, 2])
def test_logarithmic_codes_have_a_bounded_relative_error(bits, steps):
    x = probabilities()
    quantizer = LogQuantizer(bits, steps).double()
    quantizer.delta.copy_(x.max())
    quantized = quantizer(x)
    nonzero = quantized > 0
    relative = ((quantized - x) / x)[nonzero].abs().max()
    assert relative <= 2 ** (1 / (2 * steps)) - 1 + 1e-12
    assert nonzero.any()
    assert quantizer(torch.zeros(1, dtype=torch.float64)) == 0
    # what is zero lies below the last power
    assert x[~nonzero].max() <= x.max() * 2 ** (-(2**bits - 2.5) / steps) if bits < 6 else True


def test_log_sqrt2_is_the_formula_of_the_released_code():
    x = probabilities().flatten()
    quantizer = fitted(LogQuantizer(4), x)
    delta = quantizer.delta
    q = torch.round(-2 * (x / delta).log2()).clamp(0, 15)
    odd = (q % 2) * (math.sqrt(2) - 1) + 1
    released = 2 ** (-torch.ceil(q / 2)) * odd * delta
    inside = q < 15  # beyond, the released code has a value more than 4 bits can tell
    torch.testing.assert_close(quantizer(x)[inside], released[inside])
    assert (quantizer(x)[~inside] == 0).all()


def test_shift_log2_gives_powers_of_two_less_a_shift():
    x = probabilities()
    quantizer = fitted(softmax_quantizer("shift_log2", 4), x)
    exponents = (quantizer(x) + quantizer.shift).log2()
    torch.testing.assert_close(exponents, exponents.round())
    assert float(quantizer.shift) in [
        pytest.approx(shift)
        for shift in (0.001, 0.005, *[n / 100 for n in range(1, 6)], 0.1, 0.2, 0.5, 1)
    ]


def test_the_shift_has_the_least_error_of_all():
    x = probabilities()
    quantizer = fitted(softmax_quantizer("shift_log2", 4), x)
    least = quantizer.error(x)
    for shift in (0.001, 0.03, 1.0):
        assert least <= quantizer._error_with(shift, x.amin(), x.amax(), x)


@pytest.mark.parametrize("name", SOFTMAX_QUANTIZERS)
def test_gradients_go_straight_through(name):
    x = probabilities()[0, 0].requires_grad_()
    quantizer = fitted(softmax_quantizer(name, 6), x.detach())
    (gradient,) = torch.autograd.grad(quantizer(x).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.5
    assert torch.equal(quantizer(x).detach(), quantizer(x.detach()))


def test_twin_grids_share_nothing_but_the_split_and_are_nearest():
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    quantizer = softmax_quantizer("twin", 4).double()
    quantizer.split.fill_(2**-3)
    levels = torch.cat([torch.arange(8) / 7 / 8, torch.arange(1, 8) / 7]).double()
    expected = (x[:, None] - levels).abs().amin(1)
    torch.testing.assert_close((quantizer(x) - x).abs(), expected)
    assert set(quantizer.codes(levels).tolist()) == {*range(8), *range(9, 16)}
