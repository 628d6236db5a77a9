"""SparseFormer: published sizes, boxes, and what it reads in them."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reference.built_models import change_by_symmetries
from vitarium import create_model
from vitarium.architectures.bilinear import read_bilinear
from vitarium.architectures.tokens._bootstrapped_focusing import encoded_boxes
from vitarium.architectures.tokens._focusing import (
    AdaptiveMixing,
    centered_grid,
    moved_boxes,
    points_in_boxes,
)
from vitarium.architectures.tokens.sparseformer import initial_boxes
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.registry import get, section
from vitarium.testing import check_architecture

TINY = {"img_size": 16, "latent_tokens": 5, "focus_dim": 8, "focus_heads": 2, "points": 4,
        "embed_dim": 16, "depth": 3, "num_heads": 2, "stem_width": 6, "stem_stride": 2}  # fmt: skip


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def built(**settings):
    torch.manual_seed(0)
    return create_model("sparseformer", num_classes=3, **{**TINY, **settings}).double().eval()


def scrambled(model, scale=0.3):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


def images(size=16, seed=1):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, size, size, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("sparseformer_tiny", 31_522_212),
        ("sparseformer_small", 47_575_056),
        ("sparseformer_base", 81_076_996),
        ("sparseformer_bootstrapped_base", 64_185_448),
        ("sparseformer_bootstrapped_large", 212_426_984),
    ],
)
def test_it_has_the_published_numbers_of_parameters(preset, parameters):
    with meta_device():
        model = create_model(preset)
    assert count(model) == parameters
    if preset == "sparseformer_tiny":
        parts = [*model.blocks[:3], model.transition, model.blocks[0].mixing]
        assert list(map(count, parts)) == [2_395_676, 6_386_268, 3_152_384, 132_608, 1_585_364]


@pytest.mark.parametrize(
    ("preset", "tokens", "parameters", "head"),
    [("base", 48, 63_809_664, 768 * 512), ("large", 63, 212_188_476, 1024 * 768)],
)
def test_without_heads_it_has_the_numbers_of_those_bootstrapped_from_clip(
    preset, tokens, parameters, head
):
    with meta_device():
        name = f"sparseformer_bootstrapped_{preset}"
        model = create_model(name, num_classes=0, latent_tokens=tokens)
    assert count(model) == parameters - head


@pytest.mark.parametrize("focusing", ["first", "bootstrapped"])
def test_before_training_boxes_stay_where_they_start(focusing):
    _, boxes = built(focusing=focusing).focus(images())
    assert torch.allclose(boxes, initial_boxes(5).double().expand(2, -1, -1), atol=3e-8)


def test_boxes_start_as_a_grid_of_halves_and_whole_images():
    boxes = initial_boxes(50)
    assert torch.equal(boxes[0], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    assert torch.equal(boxes[48], torch.tensor([0.5, 0.5, 1.0, 1.0]))
    assert torch.allclose(boxes[1], torch.tensor([0.5 / 6, 0.0, 0.5 / 6 + 0.5, 0.5]))
    assert torch.equal(boxes[49], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_boxes_move_by_shares_of_their_size():
    box = torch.tensor([0.2, 0.4, 0.6, 0.6], dtype=torch.float64)
    moved = moved_boxes(box, torch.tensor([0.5, -1.0, 0.0, 0.0]).double())
    assert torch.allclose(moved, torch.tensor([0.4, 0.2, 0.8, 0.4]).double())
    doubled = moved_boxes(box, torch.tensor([0.0, 0.0, 2.0, 0.5]).log().nan_to_num(neginf=0))
    assert torch.allclose(doubled, torch.tensor([0.0, 0.45, 0.8, 0.55]).double(), atol=1e-6)


def test_points_are_standardized_offsets_in_the_box():
    box = torch.tensor([0.2, 0.0, 0.6, 1.0], dtype=torch.float64)
    points = points_in_boxes(box, centered_grid(36).double())
    assert torch.allclose(points.mean(0), torch.tensor([0.4, 0.5]).double())
    assert torch.allclose(points.std(0), torch.tensor([0.4, 1.0]).double() / 3)
    same = points_in_boxes(box, 7 * centered_grid(36).double() + 2)
    assert torch.allclose(points, same)


def test_mixing_is_two_products_that_the_token_generates():
    torch.manual_seed(0)
    mixing = scrambled(AdaptiveMixing(8, 3, 4).double())
    read, tokens = torch.randn(1, 2, 4, 3).double(), torch.randn(1, 2, 8).double()
    expected = []
    for token in range(2):
        generated = mixing.generate(mixing.squeeze(mixing.norm(tokens[0, token])))
        channels, points = generated[:9].view(3, 3), generated[9:].view(32, 4)
        mixed = nn.functional.gelu(read[0, token] @ channels + mixing.channel_bias)
        mixed = nn.functional.gelu(points @ mixed + mixing.row_bias[:, None])
        expected.append(mixing.output(mixed.flatten()))
    assert torch.allclose(mixing(read, tokens)[0], torch.stack(expected))


def test_mixing_without_biases_is_one_product_of_three_matrices():
    torch.manual_seed(0)
    mixing = scrambled(AdaptiveMixing(8, 3, 4, squeezed=5, bias=False).double())
    read, tokens = torch.randn(1, 2, 4, 3).double(), torch.randn(1, 2, 8).double()
    generated = mixing.generate(mixing.squeeze(mixing.norm(tokens[0, 1])))
    channels, points = generated[:9].view(3, 3), generated[9:].view(32, 4)
    mixed = nn.functional.gelu(points @ read[0, 1] @ channels)
    assert torch.allclose(mixing(read, tokens)[0, 1], mixing.output(mixed.flatten()))


def test_permuting_tokens_with_their_boxes_permutes_the_outputs():
    model = scrambled(built(class_token=True))
    batch = images()
    tokens, boxes = model.focus(batch)
    outputs = model(batch)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        model.latents.copy_(model.latents[order].clone())
        model.boxes.copy_(model.boxes[order].clone())
    permuted = model.focus(batch)
    assert torch.allclose(permuted[0], tokens[:, order])
    assert torch.allclose(permuted[1], boxes[:, order])
    assert torch.allclose(model(batch), outputs)


def test_a_shift_of_image_and_box_by_cells_reads_the_same():
    model = built()
    block, size = scrambled(model.blocks[0], scale=0.05), 12
    maps = torch.randn(1, 6, size, size, dtype=torch.float64)
    shifted = maps.roll((2, 3), dims=(2, 3))
    tokens = torch.randn(1, 1, 8, dtype=torch.float64)
    box = torch.tensor([[[0.3, 0.3, 0.5, 0.5]]], dtype=torch.float64)
    step = torch.tensor([3, 2, 3, 2], dtype=torch.float64) / size
    read = block.read(tokens, box, maps)
    assert torch.allclose(block.read(tokens, box + step, shifted), read)
    assert not torch.allclose(block.read(tokens, box, shifted), read, atol=1e-3)


def test_the_number_of_tokens_does_not_depend_on_the_size_of_the_image():
    model = built()
    assert {model.forward_features(images(size)).shape for size in (16, 24)} == {(2, 5, 16)}


def test_after_the_stem_the_cost_does_not_depend_on_the_size_of_the_image():
    def cost(compute):
        with FlopCounterMode(display=False) as counter:
            compute()
        return counter.get_total_flops()

    model, rest = built(), []
    for size in (16, 24, 48):
        stem = cost(lambda size=size: model.image_map(images(size)))
        rest.append(cost(lambda size=size: model(images(size))) - stem)
    assert rest[0] == rest[1] == rest[2] > 0


def test_gradients_of_points_are_clamped_in_training_alone():
    model = scrambled(built())
    block, maps = model.blocks[0], 1e4 * torch.randn(1, 6, 8, 8, dtype=torch.float64)
    tokens = torch.randn(1, 2, 8, dtype=torch.float64)
    boxes = initial_boxes(4)[:2].double()[None]
    largest = []
    for training in (True, False):
        own = boxes.clone().requires_grad_()
        block.train(training).read(tokens, own, maps).sum().backward()
        largest.append(own.grad.abs().max().item())
    assert largest[0] <= block.grid.shape[0] * (1 / 8) * 2 < largest[1]


def test_each_repeat_has_its_own_rate_of_stochastic_depth():
    model = built(drop_path_rate=0.6)
    rates = [getattr(drop, "drop_prob", 0.0) for drop in model.blocks[0].drops]
    rates += [model.blocks[1].drops[0].drop_prob, model.blocks[2].drop_path1.drop_prob]
    assert rates[:5] == pytest.approx([0.6 * k / 6 for k in range(5)])


@pytest.mark.parametrize(
    ("name", "heads"), [("focus_dim", "focus_heads"), ("embed_dim", "num_heads")]
)
def test_heads_that_do_not_divide_the_width_are_refused(name, heads):
    with pytest.raises(InvalidConfig, match=f"{name} .* is not divisible by {heads} 3"):
        built(**{heads: 3})


def test_what_is_read_is_a_bilinear_read():
    model = built()
    block, maps = model.blocks[0], model.image_map(images())
    boxes = model.boxes.expand(2, -1, -1)
    read = block.read(model.latents.expand(2, -1, -1), boxes, maps)
    points = points_in_boxes(boxes, block.grid.expand(2, 5, -1, -1))
    tokens = maps.flatten(2).transpose(1, 2)
    expected = read_bilinear(tokens, tuple(maps.shape[2:]), points.flatten(1, 2))
    assert torch.allclose(read.flatten(1, 2), expected)


@pytest.mark.parametrize(
    ("settings", "head"),
    [
        ({}, None),
        ({"class_token": True}, None),
        ({"focusing": "bootstrapped"}, None),
        ({}, {"name": "mlp", "hidden_dim": 5}),
    ],
)
def test_its_symmetries_change_no_output(settings, head):
    model = built(**settings)
    if head is not None:
        section("head", head)(model.float(), 3)
    change, moved_weights = change_by_symmetries("sparseformer", model.double(), images())
    assert change < 1e-12
    assert moved_weights > 0.9 * len(model.state_dict())


def test_units_of_its_streams_map_points_and_mixing_can_be_exchanged():
    groups = get("architecture", "sparseformer").facts["symmetries"](built()).groups
    sizes = {name: groups[name].size for name in groups if not name.startswith("blocks.1")}
    assert (sizes["stem"], sizes["focus"], sizes["stream"]) == (6, 8, 16)
    assert sizes["blocks.0.points"] == 4
    mixing = [sizes[f"blocks.0.mixing.{part}"] for part in ("channels", "rows", "squeeze")]
    assert mixing == [6, 32, 2]
    headless = create_model("sparseformer", num_classes=0, **TINY)
    assert "stream" not in get("architecture", "sparseformer").facts["symmetries"](headless).groups


def test_boxes_are_encoded_by_sines_and_cosines_of_frequencies_by_turns():
    boxes = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    encoded = encoded_boxes(boxes, 24)
    frequencies = [128 ** (k / 5) for k in range(6)]
    for box, vector in zip(boxes.tolist(), encoded, strict=True):
        expected = []
        for coordinate in box:
            angles = [math.pi * coordinate * frequency for frequency in frequencies]
            expected += [math.sin(a) for a in angles[0::2]] + [math.cos(a) for a in angles[1::2]]
        assert torch.allclose(vector, torch.tensor(expected).double(), atol=1e-12)


def test_bootstrapped_points_beyond_the_map_read_its_edge():
    block = scrambled(built(focusing="bootstrapped").blocks[0], scale=0.05)
    maps, tokens = torch.randn(1, 6, 5, 7).double(), torch.randn(1, 3, 8).double()
    boxes = torch.tensor([[[-0.5, 0.1, 0.4, 1.8], [0.2, 0.2, 0.4, 0.4], [2.0, 2, 3, 3]]]).double()
    offsets = block.offsets(block.offset_norm(tokens)).unflatten(-1, (-1, 2)) + block.grid
    points = 2 * points_in_boxes(boxes, offsets) - 1
    expected = nn.functional.grid_sample(maps, points, padding_mode="border", align_corners=False)
    assert torch.allclose(block.read(tokens, boxes, maps), expected.permute(0, 2, 3, 1))


def test_bootstrapped_tokens_read_are_encoded_attend_and_move():
    model = scrambled(built(focusing="bootstrapped", focus_repeats=2), scale=0.1)
    block, maps = model.blocks[0], model.image_map(images())
    tokens = model.latents.expand(2, 5, -1)
    boxes = model.boxes.expand(2, -1, -1)
    for repeat in range(2):
        tokens = tokens + block.repeat_embed[repeat]
        tokens = tokens + block.mixing(block.read(tokens, boxes, maps), tokens)
        tokens = tokens + block.encoding(encoded_boxes(boxes, 8))
        tokens = tokens + block.attn(block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
        boxes = moved_boxes(boxes, block.move(block.box_norm(tokens)))
    tokens = model.transition[0](tokens)
    second = model.blocks[1]
    tokens = tokens + second.mixing(second.read(tokens, boxes, maps), tokens)
    tokens = tokens + second.encoding(encoded_boxes(boxes, 16))
    outputs = model.focus(images())
    assert torch.allclose(outputs[0], tokens)
    assert torch.allclose(outputs[1], boxes)
    assert not torch.allclose(boxes, model.boxes.expand(2, -1, -1), atol=1e-3)


def test_a_bootstrapped_model_keeps_the_contract():
    check_architecture("sparseformer", focusing="bootstrapped", class_token=True)


def test_widths_that_boxes_cannot_be_encoded_in_are_refused():
    with pytest.raises(InvalidConfig, match="focus_dim 10 is not divisible by the 4 coordinates"):
        built(focusing="bootstrapped", focus_dim=10)
