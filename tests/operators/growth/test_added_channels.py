"""A ViT for more channels: the same bits until it learns, and a start for a second modality."""

import numpy as np
import pytest
import torch

from vitarium import Blueprint, dataset, grow
from vitarium.core import registry
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.growth.added_channels import AddedChannels, wider_architecture

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}


def widened(channels=2, **factors):
    section = registry.section("architecture", {"name": "vit", **SIZES, **factors})
    torch.manual_seed(0)
    model = section(5)
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    operator = choose("operator", "added_channels", channels=channels)
    wider = wider_architecture(AddedChannels(channels=channels), section)(5)
    wider.load_state_dict(dict(operator(Ingredients([weights]))))
    return model.eval(), wider.eval()


@pytest.mark.parametrize("in_chans", [1, 3])
def test_outputs_are_those_of_the_first_channels_alone(in_chans):
    model, wider = widened(in_chans=in_chans)
    images = torch.randn(2, in_chans + 2, 8, 8)
    others = torch.cat([images[:, :in_chans], torch.randn(2, 2, 8, 8)], 1)
    assert wider.patch_embed.proj.in_channels == in_chans + 2
    assert torch.equal(wider(images), wider(others))
    assert torch.allclose(wider(images), model(images[:, :in_chans]), atol=1e-6)


def test_new_channels_can_learn():
    _, wider = widened()
    wider(torch.randn(2, 5, 8, 8)).square().sum().backward()
    assert wider.patch_embed.proj.weight.grad[:, 3:].abs().amin((0, 2, 3)).gt(0).all()


@pytest.mark.parametrize("name", ["polyphase", "unirgb_ir", "spt_lsa", "multi_scale"])
def test_what_would_look_at_new_channels_otherwise_is_refused(name):
    tiny = registry.get("architecture", name).facts["tiny"]
    with pytest.raises(IncompatibleWeights, match=f"{name}: added_channels needs"):
        wider_architecture(AddedChannels(), choose("architecture", name, **tiny))


@pytest.fixture
def stripes():
    """Gray images, and the same with a second modality beside them."""

    def images(split):
        random = np.random.default_rng(len(split))
        labels = random.integers(0, 2, 24)
        lines = np.tile(np.arange(8) // 2 % 2, (8, 1)).astype(float)
        return np.where(labels[:, None, None] == 0, lines, lines.T), labels

    def both(split):
        gray, labels = images(split)
        return torch.from_numpy(np.stack([gray, 1 - gray], 1)), labels

    names = ("gray_stripes", "two_modality_stripes")
    for name, function in zip(names, (images, both), strict=True):
        dataset(name=name, num_classes=2)(function)
    yield names
    for name in names:
        del registry._plugins["dataset"][name]


def test_a_second_modality_is_injected_into_a_vit_that_was_trained_on_one(stripes, tmp_path):
    gray, both = stripes
    run = {"epochs": 1, "batch_size": 8, "optimizer": {"name": "adamw", "lr": 0.03}}
    side = {"interactions": 2, "side_heads": 2, "stem_width": 4, "stem_stride": 1}
    injected = {"name": "injected", "network": "unirgb_ir", "second_modality_channels": 1, **side}
    operator = {"name": "added_channels", "channels": 1}
    start = {"stage": "first", "operator": operator, "keep_head": True}
    stages = {
        "first": {"architecture": {"name": "vit", **SIZES, "in_chans": 1}, "data": gray, **run},
        "second": {"start": start, "data": both, "adaptation": injected, **run},
    }
    blueprint = Blueprint.read({"name": "modalities", "stages": stages})
    zoo = grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo
    (first,) = (id for id in zoo.ids() if zoo.spec(id).stage == "first")
    (second,) = (id for id in zoo.ids() if zoo.spec(id).stage == "second")
    (started, trained), vit = (zoo.load(second, epoch=n) for n in (0, 1)), zoo.load(first)
    images = torch.randn(3, 2, 8, 8)
    assert torch.allclose(started(images), vit(images[:, :1]), atol=1e-5)
    changed = images.clone()
    changed[:, 1] += 1
    assert torch.equal(started(images), started(changed))
    assert not torch.allclose(trained(images), trained(changed), atol=1e-4)
    frozen = trained.state_dict()["patch_embed.proj.weight"]
    assert torch.equal(frozen[:, :1], vit.patch_embed.proj.weight)
    assert not frozen[:, 1:].any()
