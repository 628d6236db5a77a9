"""DuoFormer: what is regrouped with what, how far a change reaches, and how many weights there are."""

import pytest
import timm
import torch

from reference.built_models import build, images
from vitarium import create_model
from vitarium.architectures.tokens.duoformer import map_reductions, regrouped
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device


def test_regrouping_takes_every_place_once_row_by_row():
    maps = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    tokens = regrouped(maps, (2, 3))
    assert tokens.shape == (2, 6, 4, 3)
    for row in range(2):
        for column in range(3):
            block = maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            by_hand = torch.stack(
                [block[..., 0, 0], block[..., 0, 1], block[..., 1, 0], block[..., 1, 1]], 1
            )
            assert torch.equal(tokens[:, 3 * row + column], by_hand)
    assert torch.equal(tokens.flatten().sort().values, torch.arange(maps.numel()))


@pytest.mark.parametrize(("side", "cells"), [(8, 64), (4, 16), (2, 4), (1, 1)])
def test_groups_of_all_scales_are_row_major(side, cells):
    rows, columns = torch.meshgrid(torch.arange(2 * side), torch.arange(2 * side), indexing="ij")
    tokens = regrouped(torch.stack([rows, columns]).unsqueeze(0), (2, 2))[0]
    assert tokens.shape == (4, cells, 2)
    inner = tokens[3] - side  # of the last location
    assert torch.equal(inner[:, 0] * side + inner[:, 1], torch.arange(cells))


@pytest.mark.parametrize(("scales", "tokens"), [(2, 6), (3, 22), (4, 86)])
def test_a_location_has_the_published_number_of_tokens(scales, tokens):
    with meta_device():
        model = create_model("duoformer_resnet18", scales=scales, depth=1, scale_depth=1)
    assert model.patch_embed.scale_positions.shape == (1, 1, tokens, 768)
    assert tokens == (4**scales - 1) // 3 + 1
    assert model.patch_embed.num_patches == 49


def test_weights_are_those_of_the_cnn_the_projections_and_two_stacks_of_blocks():
    with meta_device():
        model = create_model("duoformer_resnet50", num_classes=9)
        cnn = timm.create_model("resnet50", num_classes=0)
    width, block = 768, 7_087_872
    projections = sum(channels * width + width for channels in (256, 512, 1024, 2048))
    positions = (
        1 + 86
    ) * width + 51 * width  # scale token and positions; class token and positions
    expected = sum(p.numel() for p in cnn.parameters()) + projections + positions
    expected += 24 * block + 2 * width + 9 * (width + 1)
    assert sum(p.numel() for p in model.parameters()) == expected


def maps_of(model, location=None):
    """Maps for its CNN's, on a grid of 2 x 2; at a location all pixels are others."""
    maps = [images(side, count=1, channels=16, seed=side) for side in (4, 2)]
    channels = [layer.in_channels for layer in model.patch_embed.projections]
    maps = [
        each.repeat(1, -(-n // 16), 1, 1)[:, :n] for each, n in zip(maps, channels, strict=True)
    ]
    if location is not None:
        row, column = divmod(location, 2)
        for each in maps:
            half = each.shape[-1] // 2
            each[..., row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.0
    return maps


@torch.no_grad()
def test_scales_attend_inside_a_location_and_locations_in_the_second_half():
    model = build("duoformer", scale_depth=2).eval()
    embed = model.patch_embed
    before, after = (embed.scale_tokens(maps_of(model, location)) for location in (None, 2))
    changed = (after - before).abs().amax((0, 2))
    assert changed[2] > 1e-3
    assert (changed[[0, 1, 3]] < 1e-12).all()
    through = [model.blocks[0](model._pos_embed(tokens)) for tokens in (before, after)]
    assert ((through[1] - through[0]).abs().amax((0, 2)) > 1e-9).all()


@torch.no_grad()
def test_every_scale_reaches_the_scale_token():
    model = build("duoformer").eval()
    before = model.patch_embed.scale_tokens(maps_of(model))
    for number in range(2):
        maps = maps_of(model)
        maps[number] = maps[number] + 1.0
        assert (model.patch_embed.scale_tokens(maps) - before).abs().max() > 1e-6


def test_map_reductions_are_those_of_the_cnn():
    assert map_reductions("resnet18", 4) == [4, 8, 16, 32]
    assert (
        map_reductions("vit_tiny_patch16_224", 4) is None
        or map_reductions("vit_tiny_patch16_224", 4) == [16] * 4
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet81"}, "unknown timm model 'resnet81'; did you mean 'resnet"),
        (
            {"backbone": "vit_tiny_patch16_224"},
            "backbone vit_tiny|the maps of vit_tiny_patch16_224 have",
        ),
        ({"backbone": "resnet18", "patch_size": 16}, "4, 8, 16, 32 pixels"),
    ],
)
def test_cnns_whose_maps_do_not_fit_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("duoformer", **settings)
