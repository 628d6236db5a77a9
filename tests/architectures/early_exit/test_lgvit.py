"""LGViT: its exit heads, and the losses of its two stages."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium import Blueprint, grow
from vitarium.architectures.early_exit.lgvit import subsampled
from vitarium.architectures.heads import is_head
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose

SIZES = {"img_size": 20, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "num_heads": 2}
STREAM = torch.Generator().manual_seed(1)
IMAGES = torch.randn(6, 1, 20, 20, dtype=torch.float64, generator=STREAM)
TARGETS = F.one_hot(torch.arange(6) % 4, 4).double()


def model_of(**settings):
    torch.manual_seed(0)
    model = choose("architecture", "lgvit", **SIZES, **{"depth": 6, **settings})(4)
    for tensor in model.parameters():
        nn.init.normal_(tensor, std=0.3)
    return model.double()


@pytest.mark.parametrize(
    ("count", "kinds"),
    [
        (2, "local3 global2"),
        (4, "local3 local1 global2 global3"),
        (6, "local3 local1 global2 global2 global3 global3"),
        (8, "local3 local3 local1 local1 global2 global2 global3 global3"),
    ],
)
def test_heads_are_the_published_ones(count, kinds):
    blocks = range(11 - count, 11)
    config = choose("architecture", "lgvit", exit_blocks=list(blocks)).config
    assert config.kinds == tuple(kinds.split())


def test_by_default_eight_exits_stand_after_blocks_three_to_ten():
    assert choose("architecture", "lgvit").config.exiting == tuple(range(3, 11))


@pytest.mark.parametrize(("kind", "reach"), [("local3", 1), ("local1", 0)])
def test_local_heads_see_a_patch_and_its_neighbors_or_it_alone(kind, reach):
    exit_head = model_of(exit_blocks=[0], exit_heads=[kind]).eval().exits["0"]
    tokens = torch.randn(1, 26, 16, dtype=torch.float64, generator=STREAM)
    changed = tokens.clone()
    changed[:, 1 + 2 * 5 + 2] += 1  # the patch in the middle of 5 x 5
    difference = (exit_head(changed).features - exit_head(tokens).features).abs().amax(-1)
    rows, columns = difference.view(5, 5).nonzero().unbind(1)
    assert {*rows.tolist()} == {*columns.tolist()} == set(range(2 - reach, 3 + reach))
    assert len(rows) == (2 * reach + 1) ** 2


@pytest.mark.parametrize(("stride", "side"), [(2, 7), (3, 5)])
def test_maps_are_subsampled_not_averaged(stride, side):
    maps = torch.randn(2, 3, 14, 14, generator=STREAM)
    smaller = subsampled(maps, stride)
    assert smaller.shape == (2, 3, side, side)
    assert torch.equal(smaller, F.avg_pool2d(maps, 1, stride))


def test_global_heads_attend_without_a_residual():
    model = model_of(exit_blocks=[0], exit_heads=["global2"]).eval()
    exit_head, tokens = model.exits["0"], torch.randn(1, 26, 16, dtype=torch.float64)
    patches = tokens[0, 1:].view(5, 5, 16)[::2, ::2].reshape(9, 16)
    mixer, mixed = exit_head.mixer, []
    queries, keys, values = (patches @ mixer.qkv.weight.T).split(16, dim=1)
    for head in range(8):
        at = slice(2 * head, 2 * head + 2)
        attention = (queries[:, at] @ keys[:, at].T / 2**0.5).softmax(-1)
        mixed.append(attention @ values[:, at])
    expected = mixer.proj(torch.cat(mixed, 1))
    outputs = exit_head(tokens)
    torch.testing.assert_close(outputs.features[0], expected)
    logits = exit_head.head(expected.mean(0) + tokens[0, 0])
    torch.testing.assert_close(outputs.logits[0], logits)


def test_in_the_first_stage_exits_learn_in_every_second_step():
    model = model_of(exit_blocks=[1, 3]).train()
    values = []
    for epoch in (1, 1, 1, 2, 2):
        model.at_epoch(epoch)
        model(IMAGES)
        recorded = model.recorded
        values.append(model.auxiliary_loss(TARGETS).value)
        losses = [F.cross_entropy(o.logits, TARGETS.argmax(1)) for o in recorded.exits]
        expected = (2 * losses[0] + 4 * losses[1]) / 6
        if model._step % 2 == 0:
            torch.testing.assert_close(values[-1], expected)
    assert [value.item() > 0 for value in values] == [False, True, False, False, True]
    assert not values[0].requires_grad


def test_in_every_step_where_they_do_not_alternate():
    model = model_of(alternating=False).train()
    model.at_epoch(1)
    model(IMAGES)
    assert model.auxiliary_loss(TARGETS).value > 0


def test_with_a_frozen_backbone_exits_learn_from_the_model_and_from_each_other():
    model = model_of(depth=7, exit_blocks=[1, 2, 4, 5], feature_weight=0.1).train()
    model.blocks.requires_grad_(False)
    model(IMAGES)
    recorded = model.recorded
    exits, patches = recorded.exits, recorded.tokens[:, 1:]
    expected = sum(0.7 * F.cross_entropy(o.logits, TARGETS.argmax(1)) for o in exits)
    teacher = (recorded.outputs / 2).softmax(1)
    for o in exits:
        student = (o.logits / 2).softmax(1)
        divergence = (teacher * (teacher / student).log()).sum() * 4 / student.numel()
        expected = expected + 0.3 * divergence
    maps = patches.transpose(1, 2).view(6, 16, 5, 5)
    features = 0.0
    for o, stride in zip(exits, (1, 1, 2, 3), strict=True):
        target = maps[:, :, ::stride, ::stride].flatten(2).transpose(1, 2).softmax(-1)
        own = o.features.softmax(-1)
        features = features + (target * (target / own).log()).sum() / 6
    local, later = exits[:2], exits[2:]
    features = features + (local[0].features - local[1].features).square().mean()
    grams = [o.features.mT @ o.features / o.features.shape[1] for o in later]
    features = features + (grams[0] - grams[1]).square().mean()
    torch.testing.assert_close(model.auxiliary_loss(TARGETS).value, expected + 0.1 * features)


def test_the_second_stage_leaves_the_backbone_and_teaches_the_exits(tmp_path):
    architecture = {"name": "lgvit", **SIZES, "img_size": 8, "depth": 3}
    common = {"data": {"name": "digits", "train_limit": 32}, "batch_size": 16, "epochs": 1}
    stages = {
        "first": {
            "architecture": architecture,
            **common,
            "optimizer": {"name": "adamw", "lr": 1e-3},
        },
        "second": {
            "start": {"stage": "first", "keep_head": True},
            "adaptation": "head",
            **common,
            "optimizer": {"name": "adamw", "lr": 1e-3},
        },
    }
    blueprint = Blueprint.read({"name": "exits", "stages": stages})
    zoo = grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo
    models = zoo.models().set_index("stage")["id"]
    before, after = zoo.state_dict(models["first"]), zoo.state_dict(models["second"])
    model = zoo.load(models["second"])
    for name, tensor in after.items():
        same = torch.equal(tensor, before[name])
        assert same == (not is_head(model, name)), name


def test_wrong_heads_are_named():
    with pytest.raises(InvalidConfig, match="exit_heads has 1 heads, and there are 4"):
        choose("architecture", "lgvit", depth=6, exit_heads=["local1"])
    with pytest.raises(InvalidConfig, match="not divisible by exit_num_heads 7"):
        choose("architecture", "lgvit", exit_num_heads=7)
