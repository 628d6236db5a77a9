"""Momentum, center, temperature and frozen prototypes, step by step through a real trainer."""

import math

import pytest
import torch
from torch.nn import functional as F

from vitarium import Blueprint, plan
from vitarium.core.config import InvalidConfig
from vitarium.data.loader import stacked_batches
from vitarium.objectives.companions import Progress, cosine
from vitarium.objectives.self_distillation.base import (
    SelfDistillation,
    first_momentum,
    teacher_temperature,
)
from vitarium.training import TrainOptions
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 8,
                "depth": 1, "num_heads": 1}  # fmt: skip
SMALL = {"prototypes": 12, "hidden_dim": 8, "bottleneck_dim": 6}
MULTI_CROP = {"name": "multi_crop", "local_crops": 2, "local_size": 4}


def settings(tiny, objective="dino", *, augmentation=MULTI_CROP, more=None, **changes):
    stage = tiny["stages"]["pretrain"] | {
        "architecture": ARCHITECTURE,
        "augmentation": augmentation,
        "objective": {"name": objective, **SMALL, **changes},
    }
    stage.pop("grid")
    return tiny | {"stages": {"pretrain": stage | (more or {})}}


def problems(values):
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.read(values))
    return str(refused.value)


def trained(tiny, folder, epochs=3, **changes):
    """A trainer, and each of its steps' progress and loss, once it is taken."""
    spec = plan(Blueprint.read(settings(tiny, more={"epochs": epochs}, **changes))).models[0]
    member = TrainState(spec, ModelFolder(folder / spec.id), None, TrainOptions())
    trainer = Trainer([member], TrainOptions())
    trainer.training_mode()

    def steps():
        for epoch in range(1, epochs + 1):
            for number, batch in enumerate(stacked_batches([member.batches], epoch)):
                metrics = trainer.step(batch, epoch, number)
                yield member.progress(epoch, number), metrics

    return trainer, steps()


def copies(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_teacher_and_head_follow_by_the_cosine_of_the_momentum(tiny, tmp_path):
    trainer, steps = trained(tiny, tmp_path, momentum=0.8)
    model, companions = trainer.member.model, trainer.companions
    pairs = [(companions.teacher, model), (companions.teacher_head, companions.head)]
    expected = [copies(teacher) for teacher, _ in pairs]
    count = 0
    for progress, _ in steps:
        momentum = 1 + 0.5 * (0.8 - 1) * (1 + math.cos(math.pi * progress.step / 9))
        for k, (teacher, student) in enumerate(pairs):
            expected[k] = [
                momentum * own + (1 - momentum) * follows
                for own, follows in zip(expected[k], copies(student), strict=True)
            ]
            for own, value in zip(teacher.parameters(), expected[k], strict=True):
                torch.testing.assert_close(own, value, atol=1e-6, rtol=1e-5)
        count += 1
    assert count == 9


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_1_freezes_the_teacher_and_momentum_0_copies_the_student(tiny, tmp_path, momentum):
    trainer, steps = trained(tiny, tmp_path, momentum=momentum, final_momentum=momentum)
    teacher, start = trainer.companions.teacher, copies(trainer.companions.teacher)
    for _ in steps:
        expected = start if momentum else copies(trainer.member.model)
        pairs = zip(teacher.parameters(), expected, strict=True)
        assert all(torch.equal(own, value) for own, value in pairs)


def test_the_center_follows_the_teachers_logits_after_the_loss(tiny, tmp_path):
    trainer, steps = trained(tiny, tmp_path, center_momentum=0.7)
    means = []
    trainer.companions.teacher_head.register_forward_hook(
        lambda module, inputs, logits: means.append(logits.mean(0))
    )
    center, norms = torch.zeros(12), []
    for _, metrics in steps:
        norms.append((metrics["center_norm"].item(), center.norm().item()))
        center = 0.7 * center + 0.3 * means[-1]
        torch.testing.assert_close(trainer.companions.center, center)
    for logged, before in norms:
        assert logged == pytest.approx(before, rel=1e-4)


def test_the_temperature_is_warmed_up_and_prototypes_learn_later(tiny, tmp_path):
    warmup = {"teacher_temperature": 0.07, "teacher_temperature_warmup_epochs": 2}
    trainer, steps = trained(tiny, tmp_path, frozen_last_layer_epochs=2, **warmup)
    prototypes = trainer.companions.head.prototypes
    start = F.normalize(prototypes.direction.detach().clone(), dim=1)
    for progress, _ in steps:
        expected = 0.04 + 0.03 * min(1, progress.step / 6)
        assert trainer.companions.temperature.item() == pytest.approx(expected, rel=1e-5)
        moved = (F.normalize(prototypes.direction, dim=1) - start).abs().max()
        assert (moved < 1e-6) == (progress.epoch <= 2)


def initial_share(start, steps):
    """Weight of the first teacher in the last one."""
    return math.prod(cosine(start, 1.0, step, steps) for step in range(steps))


def test_how_much_of_the_first_teacher_is_left():
    assert initial_share(0.996, 100) == pytest.approx(0.82, abs=0.005)
    assert initial_share(0.996, 1000) == pytest.approx(0.13, abs=0.006)
    assert initial_share(0.996, 10_000) == pytest.approx(2e-9, rel=0.2)
    for steps in (40, 100, 1000, 2000):
        start = first_momentum(SelfDistillation(), steps, 10)
        assert initial_share(start, steps) < 0.0085
    assert first_momentum(SelfDistillation(), 10_000, 10) == 0.996


def test_momentum_by_its_half_life():
    config = SelfDistillation(momentum_half_life=2.0)
    assert first_momentum(config, 1000, 10) ** 200 == pytest.approx(0.5)
    with pytest.raises(InvalidConfig, match="leave one of them out"):
        SelfDistillation.read({"momentum": 0.9, "momentum_half_life": 1.0})


def test_the_teachers_temperature_without_warmup():
    config = SelfDistillation(teacher_temperature=0.05)
    assert teacher_temperature(config, Progress(1, 10, 0, 100)) == 0.05


@pytest.mark.parametrize("objective", ["dino", "ibot", "dinov2"])
def test_local_crops_that_patches_do_not_divide_are_one_problem(tiny, objective):
    wrong = MULTI_CROP | {"local_size": 5}
    message = problems(settings(tiny, objective, augmentation=wrong))
    assert (
        message.count("crops of 5x5 pixels cannot be cut into patches of 2x2: choose 4 or 6") == 1
    )


def test_architectures_that_take_no_other_sizes_are_refused(tiny):
    swin = {"name": "mini_swin", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 8,
            "depths": [1], "num_heads": [1], "window_size": 2}  # fmt: skip
    more = {"architecture": swin}
    message = problems(settings(tiny, more=more))
    assert "objective 'dino' with crops of other sizes needs a plain vision transformer" in message
    standard = {"name": "standard"}
    assert "objective 'ibot' needs a plain" in problems(
        settings(tiny, "ibot", augmentation=standard, more=more)
    )
    Blueprint.read(settings(tiny, augmentation=standard, more=more))


@pytest.mark.parametrize(
    ("objective", "changes", "more", "message"),
    [
        ("dinov2", {}, {"batch_size": 1}, "batch_size: KoLeo and Sinkhorn-Knopp compare"),
        ("dino", {"frozen_last_layer_epochs": 2}, {}, "would learn in none of 2 epochs"),
        ("ibot", {"gram": {"from_epoch": 3}}, {}, "gram.from_epoch 3 is after the last epoch"),
        ("supervised", {}, {"objective": "supervised"}, "'multi_crop' makes 2 views"),
    ],
)
def test_what_cannot_be_trained_is_said_before(tiny, objective, changes, more, message):
    assert message in problems(settings(tiny, objective, more=more, **changes))
