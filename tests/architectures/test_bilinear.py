"""Bilinear reads, against torch's `grid_sample`."""

import pytest
import torch
from torch.func import jvp, vmap
from torch.nn.functional import grid_sample

from vitarium.architectures.bilinear import cell_centers, read_bilinear

SIZE = (3, 5)


def maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, *SIZE, generator=generator, dtype=torch.float64)


def points(seed=1):
    """Inside, outside, and on the corner of a map."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(2, 40, 2, generator=generator, dtype=torch.float64) * 1.8 - 0.4
    drawn[:, 0], drawn[:, 1] = 0.0, 1.0
    return drawn


def tokens(images):
    return images.flatten(2).transpose(1, 2)


def reference(images, positions):
    read = grid_sample(images, 2 * positions.unsqueeze(1) - 1, "bilinear", "zeros", False)
    return read.squeeze(2).transpose(1, 2)


def test_it_reads_what_grid_sample_reads():
    read = read_bilinear(tokens(maps()), SIZE, points())
    assert torch.allclose(read, reference(maps(), points()), atol=1e-14)


@pytest.mark.parametrize("argument", [0, 1])
def test_its_gradients_are_those_of_grid_sample(argument):
    gradients = []
    for function in (lambda m, p: read_bilinear(tokens(m), SIZE, p), reference):
        inputs = maps().requires_grad_(), points().requires_grad_()
        function(*inputs).square().sum().backward()
        gradients.append(inputs[argument].grad)
    assert torch.allclose(*gradients, atol=1e-12)


def test_centers_read_the_cells():
    centers = cell_centers(SIZE, maps()).expand(2, -1, -1)
    assert torch.allclose(read_bilinear(tokens(maps()), SIZE, centers), tokens(maps()), atol=1e-14)


def test_it_goes_with_vmap_and_forward_derivatives():
    stacked = torch.stack([tokens(maps(0)), tokens(maps(2))])
    positions, direction = points(), torch.ones_like(points())
    read = vmap(lambda each: read_bilinear(each, SIZE, positions))(stacked)
    assert torch.equal(read[1], read_bilinear(stacked[1], SIZE, positions))
    _, derivative = jvp(lambda p: read_bilinear(stacked[0], SIZE, p), (positions,), (direction,))
    step = 1e-6
    ahead, behind = (
        read_bilinear(stacked[0], SIZE, positions + s * direction) for s in (step, -step)
    )
    inner = slice(2, None)  # a corner has a kink
    expected = ((ahead - behind) / (2 * step))[:, inner]
    assert torch.allclose(derivative[:, inner], expected, atol=1e-6)


def test_a_point_that_is_not_a_number_gives_none():
    positions = points()
    positions[0, 3] = torch.nan
    read = read_bilinear(tokens(maps()), SIZE, positions)
    assert read[0, 3].isnan().all()
    assert read[1].isfinite().all()
