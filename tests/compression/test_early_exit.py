"""Twins with early exits, other thresholds for them, and what is cut at an exit."""

import pytest
import timm
import torch
from torch import nn

from vitarium import compress, merge, merge_grid
from vitarium.architectures.early_exit._rule import first_exits
from vitarium.core.errors import IncompatibleWeights
from vitarium.testing._tiny_zoo import tiny_zoo

IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tiny():
    """A zoo of ViTs of three blocks with linear heads."""
    with tiny_zoo({"name": "vit", "depth": 3}) as zoo:
        yield zoo


@pytest.fixture
def trained(tiny):
    """Id of one of its models."""
    return min(tiny.ids())


@pytest.fixture
def twin(tiny, trained):
    settings = {"exit_blocks": [0, 1], "threshold": 0.15}
    return compress(tiny, "early_exit_vit", models=[trained], epochs=0, **settings)


def test_an_exit_starts_as_what_the_model_predicts_there(tiny, trained, twin):
    (student,) = twin.students.values()
    model, vit = tiny.load(student), tiny.load(trained)
    tokens = vit.blocks[0](vit._pos_embed(vit.patch_embed(IMAGES)))
    logits = model.exit_logits(IMAGES)
    assert torch.equal(logits[:, 0], vit.forward_head(vit.norm(tokens)))
    assert torch.equal(logits[:, 2], vit(IMAGES))


def test_of_a_model_with_an_mlp_for_a_head_classifiers_are_drawn(zoo, teacher):
    merged = merge(zoo, "early_exit_vit", models=[teacher])
    twin = merged.load()
    assert isinstance(twin.head, nn.Sequential)
    assert torch.equal(twin.exits["0"].norm.weight, twin.norm.weight)
    assert twin.exits["0"].head.weight.shape == (10, 16)
    with pytest.raises(IncompatibleWeights, match="its head is a Sequential, and an exit has one"):
        merge(zoo, "exit_member", models=[merged.id], block=0)


def test_the_comparison_times_images_of_the_data(twin):
    (row,) = twin.comparison.to_dict("records")
    assert row["refused_after"] == ""
    assert 0 < row["milliseconds_after"] < float("inf")
    assert row["parameters_after"] - row["parameters_before"] == 2 * (2 * 16 + 16 * 10 + 10)


def test_thresholds_are_swept_without_training(tiny, twin):
    (student,) = twin.students.values()
    grid = merge_grid(tiny, "exit_threshold", {"threshold": [0.0, 0.5, 1.0]}, models=[student])
    logits = tiny.load(student).exit_logits(IMAGES)
    for model, settings in zip(grid.models, grid.settings.values(), strict=True):
        loaded = model.load()
        assert loaded.exit_rule.threshold == settings["threshold"]
        numbers = first_exits(loaded.exit_rule, logits)
        torch.testing.assert_close(loaded(IMAGES), logits[torch.arange(5), numbers])
    operations = grid.comparison["multiply_adds"].tolist()
    assert operations[0] < operations[2]


def test_cut_at_an_exit_it_is_a_vit_that_timm_has(tiny, twin):
    (student,) = twin.students.values()
    member, _ = merge_grid(tiny, "exit_member", models=[student]).models
    architecture = member.spec.origin.architecture
    assert (architecture.name, architecture.config.depth) == ("vit", 1)
    name, overrides = architecture.plugin.facts["timm"](architecture.config)
    model = timm.create_model(name, num_classes=10, **overrides).eval()
    model.load_state_dict(tiny.state_dict(member.id), strict=True)
    torch.testing.assert_close(model(IMAGES), tiny.load(student).exit_logits(IMAGES)[:, 0])


def test_a_lgvit_has_the_weights_of_the_vit_and_exits_of_its_seed(zoo, teacher):
    settings = {"models": [teacher], "exit_blocks": [0]}
    models = [merge(zoo, "lgvit", **settings, seed=seed) for seed in (0, 1)]
    first, second = (zoo.state_dict(model.id) for model in models)
    for name, tensor in zoo.state_dict(teacher).items():
        assert torch.equal(first[name], tensor)
    assert not torch.equal(first["exits.0.head.weight"], second["exits.0.head.weight"])


def test_what_has_no_exits_is_refused(tiny, trained, twin):
    with pytest.raises(IncompatibleWeights, match="exit_threshold needs a model with early exits"):
        merge(tiny, "exit_threshold", models=[trained])
    with pytest.raises(IncompatibleWeights, match="exit_member needs an early_exit_vit, not vit"):
        merge(tiny, "exit_member", models=[trained], block=0)
    with pytest.raises(IncompatibleWeights, match="no exit stands after block 2; choose of 0, 1"):
        merge(tiny, "exit_member", models=list(twin.students.values()), block=2)
    with pytest.raises(IncompatibleWeights, match="exit_blocks 2: exits stand after blocks 0 to 1"):
        merge(tiny, "early_exit_vit", models=[trained], exit_blocks=[2])
