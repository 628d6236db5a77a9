"""Attention on perturbed patches."""

from dataclasses import replace

import pytest
import torch
from timm.models import create_model as create_timm_model

from reference.recorded import attention_maps
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.measures.robustness._patches import class_attention, patch_grid
from vitarium.measures.robustness._perturbation import pixel_batches
from vitarium.measures.robustness.patch_attack import PatchAttack, patches_attacked

FAST = {"num_images": 60, "steps": 10, "step_size": 0.15}


def measured(subject, **settings):
    return choose("measure", "patch_attention", **{**FAST, **settings})(subject)


@pytest.mark.parametrize("method", ["rollout", "last"])
def test_it_is_the_mean_share_of_attention_that_the_patches_have(subject, examples, method):
    values = measured(subject, num_patches=2, attention=method)
    (batch,) = pixel_batches(examples.first(60), 60)
    config, grid = PatchAttack(num_patches=2, **FAST), patch_grid(subject)
    chosen = grid.chosen(config, batch.indices)
    changed = patches_attacked(config, grid, subject, batch)
    for part, pixels in (("before", batch.pixels), ("after", changed)):
        maps = attention_maps(subject.model, examples.normalized(pixels))
        shares = class_attention(subject, maps, method)[chosen].view(60, 2).sum(1)
        assert values[part] == pytest.approx(shares.mean().item(), abs=1e-5)
    assert values[""] == pytest.approx(values["after"] - values["before"])
    assert values["uniform"] == pytest.approx(2 / 16)


def test_attention_moves_onto_attacked_patches_more_than_onto_corrupted_ones(subject):
    """The paper's finding."""
    attack, corruption = (measured(subject, perturbation=one) for one in ("attack", "corruption"))
    assert attack[""] > 0.005
    assert attack[""] > corruption[""]
    assert attack["before"] == pytest.approx(corruption["before"])


def test_uniform_attention_does_not_move(subject):
    values = measured(subject, temperature=1e9)
    assert values["before"] == pytest.approx(1 / 16, abs=1e-6)
    assert values[""] == pytest.approx(0, abs=1e-6)


def test_a_larger_patch_lies_on_every_token_that_it_touches(subject):
    values = measured(subject, size=4, temperature=1e9)
    assert values["uniform"] == pytest.approx(4 / 16)
    assert values["before"] == pytest.approx(4 / 16, abs=1e-6)
    small = measured(subject, size=1, temperature=1e9)
    assert small["uniform"] == pytest.approx(1 / 16)


def test_attention_within_windows_is_refused(subject):
    torch.manual_seed(0)
    model = create_timm_model(
        "swin_tiny_patch4_window7_224",
        img_size=8,
        patch_size=2,
        in_chans=1,
        window_size=2,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 1),
        num_classes=10,
    ).eval()
    windows = replace(subject, model=model)
    with pytest.raises(
        NotApplicable, match=r"attends inside windows or otherwise: \[240, 1, 4, 4\]"
    ):
        measured(windows, perturbation="corruption")
    with pytest.raises(NotApplicable, match="has no attention with a q_norm"):
        measured(windows, perturbation="corruption", temperature=2.0)


@pytest.mark.parametrize("wrong", [{"perturbation": "none"}, {"attention": "first"}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", "patch_attention", **wrong)
