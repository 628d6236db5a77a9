"""S2: one scale is the model itself, and what larger scales add to it."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reference.built_models import build, images
from vitarium import create_model
from vitarium.architectures.adaptation import start_weights
from vitarium.architectures.tokens.multi_scale import resized, stitched, tiles
from vitarium.core.config import InvalidConfig


def pair(**settings):
    """A multi-scale model and the plain one with the same weights, without heads."""
    plain_settings = {n: v for n, v in settings.items() if n not in ("scales", "tile_size")}
    plain_settings |= {"img_size": settings.get("tile_size", 16)}
    plain = build("vit", num_classes=0, **plain_settings).eval()
    model = build("multi_scale", num_classes=0, **settings).eval()
    model.load_state_dict(plain.state_dict(), strict=True)
    return model, plain


def test_tiles_are_cut_by_row_and_column_and_stitched_again():
    pixels = images(12, count=2)
    cut = tiles(pixels, 4)
    assert cut.shape == (18, 3, 4, 4)
    for row in range(3):
        for column in range(3):
            block = pixels[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            first = 2 * (3 * row + column)
            assert torch.equal(cut[first : first + 2], block)
    assert torch.equal(stitched(cut, 3, 3), pixels)


@pytest.mark.parametrize("pool", [{}, {"class_token": False, "global_pool": "avg"}])
def test_one_scale_is_the_model_itself(pool):
    model, plain = pair(scales=[1.0], **pool)
    pixels = images(16)
    assert torch.equal(model.forward_features(pixels), plain.forward_features(pixels))
    assert torch.equal(model(pixels), plain(pixels))


def test_tokens_of_two_scales_are_those_of_the_model_and_of_its_tiles():
    model, plain = pair(reg_tokens=1)
    pixels = images(16)
    tokens = model.forward_features(pixels)
    assert tokens.shape == (3, 2 + 4, 48)
    assert torch.equal(tokens[..., :24], plain.forward_features(pixels))
    large = F.interpolate(pixels, (32, 32), mode="bicubic", align_corners=False)
    parts = [
        [
            plain.forward_features(large[..., 16 * r : 16 * r + 16, 16 * c : 16 * c + 16])
            for c in range(2)
        ]
        for r in range(2)
    ]
    prefix = torch.stack([part[:, :2] for row in parts for part in row]).mean(0)
    assert torch.allclose(tokens[:, :2, 24:], prefix)
    for row in range(2):
        for column in range(2):  # a tile has four patches, and their mean is one of the map
            mean = parts[row][column][:, 2:].mean(1)
            assert torch.allclose(tokens[:, 2 + 2 * row + column, 24:], mean)


@pytest.mark.parametrize(("scales", "times"), [([1], 1), ([1, 2], 5), ([1, 2, 3], 14)])
def test_scales_cost_a_model_for_each_tile(scales, times):
    model, plain = pair(scales=scales)
    costs = []
    for each in (model, plain):
        with FlopCounterMode(display=False) as counter:
            each.forward_features(images(16))
        costs.append(counter.get_total_flops())
    assert costs[0] == times * costs[1] > 0


def test_a_larger_image_is_seen_whole_and_in_tiles():
    model, plain = pair(img_size=32, tile_size=16, scales=[0.5, 1.0])
    pixels = images(32)
    small = F.interpolate(pixels, (16, 16), mode="bicubic", align_corners=False)
    tokens = model.forward_features(pixels)
    assert torch.allclose(tokens[..., :24], plain.forward_features(small))
    corner = plain.forward_features(pixels[..., :16, :16])
    assert torch.allclose(tokens[:, 1, 24:], corner[:, 1:].mean(1))


def test_features_are_pooled_and_normed_scale_by_scale():
    model, plain = pair(class_token=False, global_pool="avg")
    pixels, tokens = images(16), model.forward_features(images(16))
    features = model.forward_head(tokens, pre_logits=True)
    by_scale = [plain.forward_head(part, pre_logits=True) for part in tokens.chunk(2, -1)]
    assert torch.equal(features, torch.cat(by_scale, -1))
    assert model(pixels).shape == (3, 48)


def test_a_grown_vit_is_taken_without_its_head():
    plain, model = build("vit", num_classes=7), build("multi_scale")
    start = start_weights(model, plain.state_dict(), head=False)
    assert start.changes == ()
    assert {n for n in model.state_dict() if n not in start.weights} == {"head.weight", "head.bias"}


def test_resizing_to_the_same_side_changes_nothing():
    pixels = images(8)
    assert resized(pixels, 8) is pixels
    assert resized(pixels.bfloat16(), 16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [1.5]}, "scale 1.5 gives 336 pixels, which tiles of 224 do not fill"),
        ({"tile_size": 100}, "tile_size 100 is not divisible by patch_size 16"),
        ({"scales": [1, 1]}, "the same size twice"),
        ({"scales": []}, "scales"),
    ],
)
def test_scales_that_tiles_do_not_fill_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("multi_scale", **settings)
