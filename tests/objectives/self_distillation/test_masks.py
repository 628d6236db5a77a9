"""Masks of crops: counts, blocks, and which crops are masked at all."""

import pytest
import torch

from vitarium import create_model
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section

GRID = {"img_size": 48, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1}  # 12 x 12


@pytest.fixture(scope="module")
def model():
    return create_model("vit", num_classes=1, **GRID)


def drawn_masks(name, model, crops=400, **settings):
    objective = section("objective", {"name": name, **settings})
    masks = objective.facts["masks"](objective.config, model)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(crops, masks.numbers, dtype=torch.float64, generator=generator)
    return masks.masks(numbers), numbers, masks


@pytest.mark.parametrize("kind", ["blocks", "random"])
def test_ibot_masks_half_of_the_crops_by_ratios_of_their_own(model, kind):
    hidden, numbers, masks = drawn_masks("ibot", model, mask_kind=kind)
    counts = hidden.sum(1)
    assert hidden.shape == (400, 144)
    assert (counts > 0).float().mean() == pytest.approx(0.5, abs=0.07)
    assert counts.max() <= 72
    assert torch.equal(hidden[7:9], masks.masks(numbers[7:9]))  # whatever the batch
    if kind == "random":
        masked = counts[counts > 0]
        assert torch.equal(masked, (144 * (0.1 + 0.4 * numbers[counts > 0, 1])).long())


@pytest.mark.parametrize("kind", ["blocks", "random"])
def test_dinov2_masks_exactly_half_with_ratios_that_lie_evenly(model, kind):
    hidden, _, _ = drawn_masks("dinov2", model, crops=40, mask_kind=kind)
    counts = hidden.sum(1)
    assert (counts > 0).sum() == 20
    if kind == "random":
        ordered = counts[counts > 0].sort().values
        low = 144 * (0.1 + 0.4 * torch.arange(20) / 20)
        assert ((ordered >= low.floor()) & (ordered <= low + 144 * 0.4 / 20)).all()


def test_blocks_come_near_their_count_and_are_compact(model):
    hidden, _, _ = drawn_masks("ibot", model, masked_crops=1.0, mask_ratio=[0.4, 0.4])
    counts = hidden.sum(1).float()
    assert counts.mean() > 0.85 * 57
    assert counts.max() <= 57

    def neighbors(masks):
        grid = masks.view(-1, 12, 12).float()
        return (grid[:, 1:] * grid[:, :-1]).sum() / grid.sum()

    scattered, _, _ = drawn_masks(
        "ibot", model, masked_crops=1.0, mask_ratio=[0.4, 0.4], mask_kind="random"
    )
    assert neighbors(hidden) > 1.5 * neighbors(scattered)


def test_a_ratio_that_hides_no_patch_is_refused(model):
    with pytest.raises(InvalidInput, match="hides none of 144 patches"):
        drawn_masks("ibot", model, mask_ratio=[0.001, 0.002])
    coarse = create_model("vit", num_classes=1, **GRID | {"patch_size": 48})
    with pytest.raises(InvalidInput, match="hides none of 1 patches"):
        drawn_masks("ibot", coarse)
    flat = create_model("vit", num_classes=1, **GRID)
    flat.patch_embed.grid_size = (1, 36)
    with pytest.raises(InvalidInput, match="no block fits"):
        drawn_masks("ibot", flat)
