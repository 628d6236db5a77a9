"""Rate-distortion: the density against integrals and a closed form, the loss, and what it trains."""

from functools import cache
from math import expm1, log

import pytest
import torch
from scipy import integrate, stats
from torch.nn import functional as F

from vitarium.architectures.create import create_model
from vitarium.core import seeds
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.data.batch import Batch
from vitarium.objectives.compression._factorized_density import FactorizedDensity
from vitarium.objectives.compression.rate_distortion import synthesis_transform

CODEC = {"img_size": 8, "in_chans": 1, "num_convs": 1, "width": 8, "channels": 6}


def random_density(channels=2, seed=0):
    """Neither linear nor symmetric, with factors of both signs; in float64."""
    with seeds.seeded(seed):
        density = FactorizedDensity(channels)
        with torch.no_grad():
            for parameter in density.parameters():
                parameter += 0.7 * torch.randn_like(parameter)
    return density.double()


def density_of(density, channel, value):
    """The derivative of the cumulative distribution at a value."""
    values = torch.full((density.biases[0].shape[0], 1), value, dtype=torch.float64)
    values.requires_grad_()
    cumulative = torch.sigmoid(density.logits(values))[channel].sum()
    return torch.autograd.grad(cumulative, values)[0][channel].item()


def probability(density, channel, value):
    channels = density.biases[0].shape[0]
    maps = torch.full((1, channels, 1, 1), value, dtype=torch.float64)
    with torch.no_grad():
        return 2 ** -density.bits(maps)[0, channel].item()


@pytest.mark.parametrize("seed", [0, 1])
def test_cumulative_distributions_rise_from_0_to_1(seed):
    values = torch.linspace(-300, 300, 2001, dtype=torch.float64).expand(2, -1)
    with torch.no_grad():
        logits = random_density(seed=seed).logits(values)
    assert bool((logits.diff(dim=1) > 0).all())
    assert torch.sigmoid(logits[:, 0]).max() < 1e-3
    assert torch.sigmoid(logits[:, -1]).min() > 1 - 1e-3


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("value", [-7.0, 0.0, 0.3, 12.0])
def test_bits_are_of_the_integral_of_the_density_around_a_value(channel, value):
    density = random_density()
    expected, _ = integrate.quad(
        lambda x: density_of(density, channel, x), value - 0.5, value + 0.5
    )
    assert probability(density, channel, value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channel", [0, 1])
def test_probabilities_of_integers_sum_to_one_and_the_noisy_density_integrates_to_one(channel):
    density = random_density()
    integers = torch.arange(-2000, 2001, dtype=torch.float64)
    maps = integers.view(1, 1, 1, -1).expand(1, 2, 1, -1)
    with torch.no_grad():
        total = (2 ** -density.bits(maps))[0, channel].sum().item()
    assert total == pytest.approx(1, abs=1e-4)
    integral, _ = integrate.quad(
        lambda x: probability(density, channel, x), -2000, 2000, points=[-10, 0, 10], limit=200
    )
    assert integral == pytest.approx(1, abs=1e-4)


def logistic(scale, mean):
    """A density whose network is x -> (x - mean) / scale."""
    density = FactorizedDensity(1)
    with torch.no_grad():
        for number, (matrix, bias) in enumerate(zip(density.matrices, density.biases, strict=True)):
            slope = 1 / matrix.shape[2] / (scale if number == 0 else 1)
            matrix.fill_(log(expm1(slope)))
            bias.fill_(-mean / scale if number == 0 else 0.0)
    return density


def test_bits_of_a_logistic_density_are_in_closed_form_also_in_its_tails():
    scale, mean = 0.5, 0.25
    values = torch.tensor([-60.0, -3.2, 0.0, 0.25, 1.7, 60.0])
    with torch.no_grad():
        bits = logistic(scale, mean).bits(values.view(1, 1, 1, -1)).flatten()
    reference = stats.logistic(mean, scale)
    for value, actual in zip(values.tolist(), bits.tolist(), strict=True):
        side = reference.sf if value > mean else reference.cdf
        interval = abs(side(value + 0.5) - side(value - 0.5))
        assert actual == pytest.approx(-log(interval) / log(2), rel=1e-4)


def built(name="image_codec", **settings):
    objective = section("objective", {"name": "rate_distortion", **settings})
    with seeds.seeded(0):
        model = create_model(name, num_classes=0, **CODEC)
        companions = objective.facts["companions"](objective.config, model, 10)
    return objective, model, companions


def smooth_images(count, seed=0):
    """Random low frequencies: images that can be compressed."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(count, 1, 3, 3, generator=generator)
    return F.interpolate(small, size=8, mode="bicubic", align_corners=True)


def batch_of(objective, model, images, seed=0):
    draws = objective.facts["masks"](objective.config, model)
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(len(images), draws.numbers, dtype=torch.float64, generator=generator)
    labels = torch.zeros(len(images), dtype=torch.long)
    return Batch(images, labels, F.one_hot(labels, 2).float(), masks=draws.masks(numbers))


def test_the_loss_is_its_definition():
    objective, model, companions = built(distortion_weight=7.0)
    images = smooth_images(3)
    batch = batch_of(objective, model, images)
    loss = objective(model, batch, companions)
    layer = model.layers[0]
    maps = F.conv2d(images, layer.weight, layer.bias, stride=2, padding=2)
    noisy = maps + batch.masks.view(3, 6, 4, 4)
    bits = companions.density.bits(noisy).sum() / (3 * 8 * 8)
    transposed = companions.synthesis[0]
    decoded = F.conv_transpose2d(noisy, transposed.weight, transposed.bias, 2, 2, 1)
    error = (decoded - images).square().mean()
    assert loss.value.item() == pytest.approx((7 * error + bits).item(), rel=1e-5)
    assert loss.metrics["bits_per_pixel"].item() == pytest.approx(bits.item(), rel=1e-5)
    assert loss.metrics["distortion"].item() == pytest.approx(error.item(), rel=1e-5)


def test_noise_is_uniform_and_other_for_each_entry_and_image():
    objective, model, _ = built()
    noise = batch_of(objective, model, smooth_images(100)).masks
    assert noise.shape == (100, 6 * 4 * 4)
    assert noise.dtype == torch.float32
    assert noise.unique().numel() > 0.99 * noise.numel()
    uniform = stats.uniform(-0.5, 1)
    assert stats.kstest(noise.flatten().numpy(), uniform.cdf).pvalue > 0.01


@cache
def trained(weight, steps=150):
    objective, model, companions = built(distortion_weight=weight)
    parameters = [*model.parameters(), *companions.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    for step in range(steps):
        batch = batch_of(objective, model, smooth_images(32, seed=step), seed=step)
        optimizer.zero_grad()
        objective(model, batch, companions).value.backward()
        optimizer.step()
    return model, companions


@torch.no_grad()
def rounded(model, companions):
    """Bits per pixel and mean squared error of new images whose maps are rounded."""
    images = smooth_images(200, seed=10**6)
    maps = model.forward_features(images).round()
    bits = companions.density.bits(maps).sum().item() / images.numel()
    return bits, (companions.synthesis(maps) - images).square().mean().item()


def test_training_compresses_and_lambda_trades_rate_for_distortion():
    _, *untrained = built()
    (bits_before, error_before) = rounded(*untrained)
    few, cheap = rounded(*trained(3.0))
    many, precise = rounded(*trained(300.0))
    assert precise < cheap < error_before
    assert few < many < bits_before
    assert few < 0.7 * many
    assert precise < 0.5 * cheap


def test_the_rate_of_noisy_maps_is_about_that_of_rounded_ones():
    objective, *_ = built(distortion_weight=300.0)
    model, companions = trained(300.0)
    batch = batch_of(objective, model, smooth_images(200, seed=10**6))
    with torch.no_grad():
        noisy = objective(model, batch, companions).metrics["bits_per_pixel"].item()
    assert noisy == pytest.approx(rounded(model, companions)[0], rel=0.05)


def test_the_published_sizes_mirror_each_other():
    with meta_device():
        model = create_model("image_codec", num_classes=0)
        synthesis = synthesis_transform(model.config)
        maps = model.forward_features(torch.empty(2, 3, 256, 256))
        assert synthesis(maps).shape == (2, 3, 256, 256)
    assert maps.shape == (2, 192, 16, 16)
    inner = 2 * (128 * 128 * 25 + 128)
    decoder = 192 * 128 * 25 + 128 + inner + 128 * 3 * 25 + 3
    assert sum(parameter.numel() for parameter in synthesis.parameters()) == decoder


def test_other_architectures_are_refused():
    objective = section("objective", "rate_distortion")
    vit = create_model("vit", num_classes=0, img_size=8, patch_size=4, depth=1)
    for make in (objective.facts["companions"], objective.facts["masks"]):
        arguments = (objective.config, vit, 10)[: make.__code__.co_argcount]
        with pytest.raises(InvalidInput, match="image_codec, and not VisionTransformer"):
            make(*arguments)
