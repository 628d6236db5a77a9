"""The benchmark of twins: models in pairs, and targets that are missed or reached."""

import argparse

import pytest
import torch
import twins
from torch import nn

from vitarium import create_model
from vitarium.core.registry import choose

TINY = {"img_size": 224, "patch_size": 56, "embed_dim": 12, "depth": 4, "num_heads": 2}


def test_every_twin_can_be_built_as_wide_as_the_original():
    for twin in twins.TWINS.values():
        config = choose("architecture", twin.architecture, **twins.VIT_S, **twin.settings).config
        assert (config.embed_dim, config.depth, config.img_size) == (384, 12, 224)


def test_pruned_twins_take_half_of_the_operations_of_the_blocks():
    images = torch.zeros(1, 3, 224, 224)
    full = twins.operations(twins.built(twins.Twin("vit", {})), images)
    half = twins.operations(twins.built(twins.TWINS["half of heads and MLPs"]), images)
    assert half / full == pytest.approx(0.5, abs=0.02)


def test_twins_have_the_weights_that_fit():
    original = create_model("vit", num_classes=10, **TINY)
    settings = {**TINY, "hidden": [7] * 4}
    twin = twins.with_weights(create_model("uneven_vit", num_classes=10, **settings), original)
    assert torch.equal(twin.blocks[0].attn.qkv.weight, original.blocks[0].attn.qkv.weight)
    assert twin.blocks[0].mlp.fc1.weight.shape == (7, 12)


def test_a_row_is_the_median_of_pairs_against_its_target(monkeypatch):
    monkeypatch.setattr(twins, "paired_seconds", lambda *given: [(4, 2), (6, 2), (3, 2), (8, 2)])
    monkeypatch.setattr(twins, "built", lambda twin: nn.Flatten())
    args = argparse.Namespace(batch=1, device="cpu", threads=1, runs=4)
    monkeypatch.setattr(twins, "operations", lambda model, images: 10)
    row = twins.compared(twins.Twin("vit", {}, 2.5), nn.Flatten(), args)
    assert (row["times_as_fast"], row["reached"]) == (2.5, True)
    assert row["milliseconds_before"] == 5000
    assert not twins.compared(twins.Twin("vit", {}, 2.6), nn.Flatten(), args)["reached"]
    assert twins.compared(twins.Twin("vit", {}), nn.Flatten(), args)["reached"] is None
