"""Polyphase anchoring: outputs are the same for every circular shift, and what would break that."""

import pytest
import torch
from torch.nn import functional as F

from reference.built_models import build, images
from vitarium import create_model
from vitarium.architectures.tokens.polyphase import anchored, circularly_padded, rolled
from vitarium.core.config import InvalidConfig


def shifted(image):
    """All circular shifts of an image [1, c, h, w]: [h * w, c, h, w]"""
    height, width = image.shape[-2:]
    shifts = [(row, column) for row in range(height) for column in range(width)]
    return torch.cat([image.roll(shift, (2, 3)) for shift in shifts])


def spread(outputs):
    """The largest difference from the first, as a share of the largest output."""
    return ((outputs - outputs[:1]).abs().max() / outputs.abs().max()).item()


SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1}


@pytest.mark.parametrize(
    "settings",
    [{}, {"class_token": True, "global_pool": "token", "reg_tokens": 1}, {"anchor_patch": True}],
)
def test_no_circular_shift_changes_the_outputs(settings):
    image = images(8, count=1, channels=1)
    model = build("polyphase", **SIZES, **settings).eval()
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
