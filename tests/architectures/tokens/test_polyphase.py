"""Polyphase anchoring: outputs are the same for every circular shift, and what would break that."""

import pytest
import torch
from torch.nn import functional as F

from reference.built_models import build, images
from vitarium import create_model
from vitarium.architectures.tokens.polyphase import (
    WindowBlock,
    anchored,
    circularly_padded,
    rolled,
)
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.testing import check_architecture


def shifted(image):
    """All circular shifts of an image [1, c, h, w]: [h * w, c, h, w]"""
    height, width = image.shape[-2:]
    shifts = [(row, column) for row in range(height) for column in range(width)]
    return torch.cat([image.roll(shift, (2, 3)) for shift in shifts])


def spread(outputs):
    """The largest difference from the first, as a share of the largest output."""
    return ((outputs - outputs[:1]).abs().max() / outputs.abs().max()).item()


SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1}
PREFIX = {"class_token": True, "global_pool": "token", "reg_tokens": 1}
WINDOWS = {"patch_size": 2, "window_size": 2}  # of a grid of 4 x 4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        PREFIX,
        {"anchor_patch": True},
        WINDOWS,
        {**WINDOWS, "global_every": 0},
        {**WINDOWS, **PREFIX, "depth": 3},
        {**WINDOWS, "anchor_patch": True},
        {"img_size": 6, "patch_size": 1, "window_size": 3},
    ],
)
def test_no_circular_shift_changes_the_outputs(settings):
    model = build("polyphase", **{**SIZES, **settings}).eval()
    image = images(model, count=1, channels=1)
    assert spread(model(shifted(image))) < 1e-13


def test_nor_after_training():
    model = build("polyphase", **SIZES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pixels, before = images(8, count=4, channels=1), build("polyphase", **SIZES).state_dict()
    for _ in range(3):
        loss = F.cross_entropy(model(pixels), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(w, before[n]) for n, w in model.state_dict().items())
    assert spread(model.eval()(shifted(pixels[:1]))) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_the_largest_patch_first_shifted_images_are_the_same_bit_by_bit(dtype):
    image = images(8, count=1, channels=3).to(dtype)
    canonical = anchored(shifted(image), 4, first_patch=True)
    assert torch.equal(canonical, canonical[:1].expand_as(canonical))


def test_without_anchoring_shifts_change_the_outputs():
    model = build("vit", **SIZES, class_token=False, global_pool="avg").eval()
    assert spread(model(shifted(images(8, count=1, channels=1)))) > 1e-3


def test_with_zeros_around_the_convolution_shifts_change_the_outputs(monkeypatch):
    def padded(maps):
        return F.pad(maps, (1, 1, 1, 1))

    monkeypatch.setattr("vitarium.architectures.tokens.polyphase.circularly_padded", padded)
    model = build("polyphase", **SIZES).eval()
    assert spread(model(shifted(images(8, count=1, channels=1)))) > 1e-5


@pytest.mark.parametrize("first_patch", [False, True])
def test_anchoring_keeps_the_pixels_and_anchors_once(first_patch):
    pixels = images(12, count=5)
    once = anchored(pixels, 4, first_patch=first_patch)
    assert torch.equal(anchored(once, 4, first_patch=first_patch), once)
    for before, after in zip(pixels, once, strict=True):
        assert torch.equal(before.flatten(1).sort().values, after.flatten(1).sort().values)
    assert torch.equal(anchored(pixels, 1), pixels)


def test_the_largest_component_of_each_image_comes_first():
    pixels, side = images(12, count=6), 3
    for image, after in zip(pixels, anchored(pixels, side), strict=True):
        phases = [(i, j) for i in range(side) for j in range(side)]
        norms = [image[:, i::side, j::side].norm().item() for i, j in phases]
        i, j = phases[norms.index(max(norms))]
        assert torch.equal(after, image.roll((-i, -j), (1, 2)))
        patches = after.square().unfold(1, side, side).unfold(2, side, side).sum((0, 3, 4))
        row, column = divmod(patches.argmax().item(), 4)
        largest = after.roll((-row * side, -column * side), (1, 2))
        assert torch.equal(anchored(image.unsqueeze(0), side, first_patch=True)[0], largest)


def test_of_equal_components_the_first_counts():
    constant = torch.ones(1, 2, 8, 8)
    marked = constant.clone()
    marked[0, 0, 5, 6] = marked[0, 0, 6, 5] = 2.0  # components (1, 2) and (2, 1) of 4 x 4
    assert torch.equal(anchored(constant, 4), constant)
    assert torch.equal(anchored(marked, 4), marked.roll((-1, -2), (2, 3)))


def test_the_gradient_of_an_image_is_rolled_back():
    pixels = images(8, count=3).requires_grad_()
    weights = images(8, count=3, seed=1)
    (anchored(pixels, 4) * weights).sum().backward()
    energy = pixels.detach().square().sum(1)
    for image, gradient, weight in zip(energy, pixels.grad, weights, strict=True):
        norms = torch.stack([image[i::4, j::4].sum() for i in range(4) for j in range(4)])
        shift = divmod(norms.argmax().item(), 4)
        assert torch.equal(gradient, weight.roll(shift, (1, 2)))


def test_rolling_and_circular_padding_are_torchs():
    pixels = images(5, count=2)
    rows, columns = torch.tensor([1, 4]), torch.tensor([3, 0])
    expected = [pixels[0].roll((-1, -3), (1, 2)), pixels[1].roll((-4, 0), (1, 2))]
    assert torch.equal(rolled(pixels, rows, columns), torch.stack(expected))
    assert torch.equal(circularly_padded(pixels), F.pad(pixels, (1, 1, 1, 1), mode="circular"))


def test_a_setting_of_position_embeddings_is_refused():
    with pytest.raises(InvalidConfig, match="polyphase has no position"):
        create_model("polyphase", no_embed_class=True)


def window_block(side=6, window=3, **settings):
    torch.manual_seed(0)
    return WindowBlock(side, window, dim=8, num_heads=2, qkv_bias=True, **settings).double().eval()


def tokens(side=6, prefix=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, prefix + side**2, 8, dtype=torch.float64, generator=generator)


def grid(patches, side=6):
    return patches.unflatten(1, (side, side))


@torch.no_grad()
def test_a_window_block_of_a_shifted_grid_is_rolled_by_whole_windows():
    block, x = window_block(), tokens()
    before = grid(block(x))
    multiples = [(row, column) for row in (0, 3) for column in (0, 3)]
    for shift in [(row, column) for row in range(6) for column in range(6)]:
        after = grid(block(grid(x).roll(shift, (1, 2)).flatten(1, 2)))
        for of_before, of_after in zip(before, after, strict=True):
            changes = [(of_before.roll(m, (0, 1)) - of_after).abs().max() for m in multiples]
            assert min(changes) < 1e-13


@torch.no_grad()
def test_anchoring_tokens_reorders_patches_once_and_leaves_the_prefix():
    block, x = window_block(), tokens(prefix=2)
    once = block.anchored(x)
    assert torch.equal(block.anchored(once), once)
    assert not torch.equal(once, x)
    assert torch.equal(once[:, :2], x[:, :2])
    for before, after in zip(x, once, strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert torch.equal(window_block(window=1).anchored(x), x)


@torch.no_grad()
def test_attention_in_windows_is_masked_attention():
    block, x = window_block(side=4, window=2), tokens(side=4)
    at = torch.arange(16)
    window = at // 8 * 2 + at % 4 // 2
    expected = block.attn(x, attn_mask=window.unsqueeze(1) == window)
    torch.testing.assert_close(block.attend(x), expected)


@torch.no_grad()
def test_each_window_sees_the_prefix_which_gets_the_mean_of_the_windows():
    block, x = window_block(side=4, window=2), tokens(side=4, prefix=1)
    maps, expected = grid(x[:, 1:], 4), []
    attended = block.attend(x)
    for row in (0, 2):
        for column in (0, 2):
            inside = maps[:, row : row + 2, column : column + 2].flatten(1, 2)
            outputs = block.attn(torch.cat([x[:, :1], inside], dim=1))
            expected.append(outputs[:, :1])
            of_window = grid(attended[:, 1:], 4)[:, row : row + 2, column : column + 2]
            torch.testing.assert_close(of_window.flatten(1, 2), outputs[:, 1:])
    torch.testing.assert_close(attended[:, :1], torch.stack(expected).mean(0))


@torch.no_grad()
def test_a_window_that_is_the_grid_is_the_plain_block():
    settings = {"patch_size": 2, "in_chans": 1, "class_token": True, "global_pool": "token"}
    plain = build("polyphase", img_size=8, **settings).eval()
    windowed = build("polyphase", img_size=8, window_size=4, **settings).eval()
    windowed.load_state_dict(plain.state_dict())
    pixels = images(plain, channels=1)
    torch.testing.assert_close(windowed(pixels), plain(pixels))


def test_the_gradient_of_tokens_comes_back_to_where_they_were():
    block, x = window_block(), tokens().requires_grad_()
    weights = tokens(seed=1)
    (block.anchored(x) * weights).sum().backward()
    energy = grid(x.detach()).square().sum(-1)
    for image, gradient, weight in zip(energy, grid(x.grad), grid(weights), strict=True):
        norms = torch.stack([image[i::3, j::3].sum() for i in range(3) for j in range(3)])
        shift = divmod(norms.argmax().item(), 3)
        assert torch.equal(gradient, weight.roll(shift, (0, 1)))


@pytest.mark.parametrize(
    ("every", "depth", "expected"), [(2, 4, "wgwg"), (3, 6, "wwgwwg"), (0, 3, "www"), (1, 2, "gg")]
)
def test_each_so_many_th_block_is_global(every, depth, expected):
    model = build("polyphase", img_size=16, window_size=2, global_every=every, depth=depth)
    kinds = "".join("w" if isinstance(block, WindowBlock) else "g" for block in model.blocks)
    assert kinds == expected


def test_windows_keep_the_contract_with_a_class_token():
    check_architecture("polyphase", **WINDOWS, **PREFIX, img_size=8)


def test_without_anchoring_windows_shifts_change_the_outputs(monkeypatch):
    monkeypatch.setattr(WindowBlock, "anchored", lambda _, tokens: tokens)
    model = build("polyphase", **{**SIZES, **WINDOWS}).eval()
    assert spread(model(shifted(images(8, count=1, channels=1)))) > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_size": 3}, "window_size 3 does not divide 14 rows"),
        ({"global_every": 3}, "global_every 3 is of windows"),
    ],
)
def test_settings_of_windows_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("polyphase", **settings)


def test_masks_of_attention_are_refused():
    with pytest.raises(InvalidInput, match="takes no masks"):
        window_block()(tokens(), is_causal=True)
