"""Stages of a training with rising image sizes."""

import pytest
import torch
from torch.nn import functional as F

import vitarium
from vitarium.architectures.patch_tokens import patch_positions
from vitarium.blueprint.progressive import Progressive
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.engine.check import ModelCheck
from vitarium.training import Stepped, TrainOptions, train, train_together
from vitarium.training._progressive import take_all_sizes
from vitarium.training.train_state import TrainState
from vitarium.zoo import ModelFolder

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 16,
                "depth": 2, "num_heads": 2}  # fmt: skip
PROGRESSIVE = {"stages": 2, "smallest": 2, "smallest_magnitude": 3}
AUGMENTATION = {"mixup": 0.8, "cutmix": 1.0, "policy": {"name": "randaugment", "magnitude": 9}}


def models(**changes):
    stage = {"architecture": ARCHITECTURE, "data": {"name": "digits", "train_limit": 64}}
    stage |= {"epochs": 2, "batch_size": 32, "progressive": PROGRESSIVE}
    return vitarium.plan({"name": "x", "stages": {"a": stage | changes}}, check=ModelCheck()).models


def weights(folder):
    return ModelFolder(folder).weights()


@pytest.mark.parametrize(
    ("full", "pixels", "of_patches"),
    [
        (192, [144, 160, 176, 192], [144, 160, 176, 192]),
        (300, [171, 214, 257, 300], [176, 208, 256, 300]),
        (384, [192, 256, 320, 384], [192, 256, 320, 384]),
    ],
)
def test_sizes_are_the_published_ones_in_multiples_of_patches(full, pixels, of_patches):
    progressive = Progressive(smallest=128)
    assert [progressive.pixels(stage, full) for stage in range(4)] == pixels
    sizes = progressive.sizes((full, full), (16, 16))
    assert sizes == [(size, size) for size in of_patches]


def test_the_papers_rule_begins_at_the_smallest_size():
    progressive = Progressive(smallest=128, first_stage="at")
    assert [progressive.pixels(stage, 380) for stage in range(4)] == [128, 212, 296, 380]
    assert [progressive.stage_of(epoch, 8) for epoch in range(1, 9)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_stage_has_its_size_and_strength_and_the_last_is_ordinary_training(tmp_path):
    ((spec,), (plain,)) = (
        models(augmentation=AUGMENTATION),
        models(augmentation=AUGMENTATION, progressive=None),
    )
    state, ordinary = (
        TrainState(each, ModelFolder(tmp_path / each.id), None, TrainOptions())
        for each in (spec, plain)
    )
    for epoch, height in ((1, 4), (2, 8)):
        batches = state.images.of_epoch(epoch)
        images = [batch.images for batch in batches.train(epoch)]
        assert {tuple(each.shape) for each in images} == {(32, 1, height, height)}
        assert torch.equal(batches.order(epoch), ordinary.batches.order(epoch))
        assert state.tokens_seen(epoch) == {"train_tokens": 64 * (height // 2) ** 2}
    assert ordinary.tokens_seen(1) == {}
    targets = [batch.targets for batch in state.images.of_epoch(1).train(1)]
    assert all(set(rows.unique().tolist()) <= {0.0, 1.0} for rows in targets)  # mixup begins at 0
    for batch, expected in zip(
        state.images.of_epoch(2).train(2), ordinary.batches.train(2), strict=True
    ):
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets, expected.targets)


def test_positions_are_resampled_from_those_of_the_full_size():
    model = section("architecture", ARCHITECTURE)(3)
    images, full = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 8, 8)
    of_full = model(full)
    take_all_sizes(model)
    assert torch.equal(model(full), of_full)
    tokens = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
    grid = model.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    small = F.interpolate(grid, size=(2, 2), mode="bicubic", antialias=True)
    positions = small.flatten(2).transpose(1, 2)
    torch.testing.assert_close(patch_positions(model, (2, 2)), positions, atol=1e-6, rtol=1e-5)
    first = model.cls_token + model.pos_embed[:, :1]
    tokens = torch.cat([first.expand(2, -1, -1), tokens + positions], dim=1)
    expected = model.head(model.norm(model.blocks(tokens))[:, 0])
    torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-5)
    model(images).sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0


def test_one_stage_is_ordinary_training(tmp_path):
    (spec,) = models(progressive=PROGRESSIVE | {"stages": 1}, epochs=1)
    (plain,) = models(progressive=None, epochs=1)
    for each in (spec, plain):
        train(each, ModelFolder(tmp_path / each.id))
    expected = weights(tmp_path / plain.id)
    for name, tensor in weights(tmp_path / spec.id).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_run_that_is_killed_in_a_stage_goes_on_with_the_same_bits(tmp_path):
    (spec,) = models(augmentation=AUGMENTATION, epochs=4)

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and event.epoch == 4:
            raise Killed

    train(spec, ModelFolder(tmp_path / "unbroken" / spec.id))
    with pytest.raises(Killed):
        train(spec, ModelFolder(tmp_path / "killed" / spec.id), report=kill)
    train(spec, ModelFolder(tmp_path / "killed" / spec.id))
    expected = weights(tmp_path / "unbroken" / spec.id)
    for name, tensor in weights(tmp_path / "killed" / spec.id).items():
        assert torch.equal(tensor, expected[name]), name
    epochs = ModelFolder(tmp_path / "killed" / spec.id).epochs()[1:]
    assert [epoch.metrics["train_tokens"] for epoch in epochs] == [256, 256, 1024, 1024]


def test_a_stack_trains_models_as_by_themselves(tmp_path):
    specs = [models(seed=seed, optimizer={"name": "sgd", "lr": 0.02})[0] for seed in (1, 2)]
    tasks = [vitarium.training.Task(spec, ModelFolder(tmp_path / spec.id)) for spec in specs]
    train_together(tasks)
    for spec in specs:
        train(spec, ModelFolder(tmp_path / "single" / spec.id))
        expected = weights(tmp_path / "single" / spec.id)
        for name, tensor in weights(tmp_path / spec.id).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "3 epochs are no multiple of 2 stages"),
        ({"objective": "mae", "progressive": PROGRESSIVE}, "objective 'mae' needs images of one"),
        ({"progressive": {"smallest": 8}, "epochs": 4}, "it rises from 8 pixels, and the model's"),
        (
            {"architecture": {"name": "mini_swin", "img_size": 8, "patch_size": 2, "in_chans": 1,
                              "window_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [1]}},
            "progressive image size needs a plain vision transformer",
        ),
    ],
)  # fmt: skip
def test_what_it_does_not_go_with_is_seen_before_training(changes, message):
    with pytest.raises(InvalidConfig, match=message):
        models(**changes)
