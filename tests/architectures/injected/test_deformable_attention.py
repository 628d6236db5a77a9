"""Multi-scale deformable attention, against sums that are written out."""

import math

import pytest
import torch

from vitarium.architectures.bilinear import cell_centers, read_bilinear
from vitarium.architectures.injected._deformable_attention import DeformableAttention

SIZES = ((4, 6), (2, 3))


def attention(width=12, maps=2, heads=3, points=2, ratio=0.5, scale=0.0):
    torch.manual_seed(0)
    module = DeformableAttention(width, maps, heads, points, ratio)
    module.reset()
    for parameter in (module.offsets.weight, module.weights.weight, module.weights.bias):
        torch.nn.init.normal_(parameter, std=scale)
    return module.double()


def inputs():
    torch.manual_seed(1)
    queries = torch.randn(2, 6, 12, dtype=torch.float64)
    tokens = torch.randn(2, 30, 12, dtype=torch.float64)
    return queries, cell_centers((2, 3), queries), tokens


@pytest.mark.parametrize(("width", "maps", "heads", "points", "ratio"), [
    (192, 3, 6, 4, 1.0), (192, 1, 6, 4, 1.0), (1024, 3, 16, 4, 0.5), (12, 2, 3, 2, 0.5),
])  # fmt: skip
def test_it_has_the_published_number_of_parameters(width, maps, heads, points, ratio):
    module = DeformableAttention(width, maps, heads, points, ratio)
    inner = int(ratio * width)
    expected = 3 * heads * maps * points * (width + 1) + 2 * inner * width + inner + width
    assert sum(p.numel() for p in module.parameters()) == expected


@torch.no_grad()
def test_it_is_the_sum_over_maps_and_points():
    module, (queries, places, tokens) = attention(scale=0.5), inputs()
    outputs = module(queries, places, tokens, SIZES)
    offsets = module.offsets(queries).view(2, 6, 3, 2, 2, 2)
    weights = module.weights(queries).view(2, 6, 3, 4).softmax(-1).view(2, 6, 3, 2, 2)
    values = module.value(tokens).view(2, 30, 3, 2)
    for image, query in [(0, 0), (1, 5), (0, 3)]:
        total, start = torch.zeros(3, 2, dtype=torch.float64), 0
        for number, (rows, columns) in enumerate(SIZES):
            cells = values[image, start : start + rows * columns]
            start += rows * columns
            size = torch.tensor([columns, rows], dtype=torch.float64)
            for head in range(3):
                for point in range(2):
                    at = places[query] + offsets[image, query, head, number, point] / size
                    read = read_bilinear(cells[None, :, head], (rows, columns), at.view(1, 1, 2))
                    total[head] += weights[image, query, head, number, point] * read[0, 0]
        expected = module.output(total.flatten())
        assert torch.allclose(outputs[image, query], expected, atol=1e-12)


@torch.no_grad()
def test_without_offsets_one_point_is_a_bilinear_read_at_its_place():
    module = attention(maps=1, points=1, heads=1, ratio=1.0)
    module.offsets.bias.zero_()
    queries, places, tokens = inputs()
    outputs = module(queries, places, tokens[:, :24], SIZES[:1])
    read = read_bilinear(module.value(tokens[:, :24]), SIZES[0], places.expand(2, -1, -1))
    assert torch.allclose(outputs, module.output(read), atol=1e-12)


def test_offsets_start_as_a_ring_and_weights_equal():
    module = attention(heads=8, width=16)
    ring = module.offsets.bias.view(8, 2, 2, 2)
    assert torch.equal(ring[:, 0], ring[:, 1])
    for head in range(8):
        angle = 2 * math.pi * head / 8
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        for point in range(2):
            expected = (point + 1) * direction / direction.abs().max()
            assert torch.allclose(ring[head, 0, point], expected, atol=1e-6)
    assert not module.offsets.weight.any()
    assert not module.weights.weight.any()
