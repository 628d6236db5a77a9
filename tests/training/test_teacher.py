"""Training with a teacher: asked once for each batch, never changed, and as reproducible."""

import pytest
import torch

from vitarium import Blueprint, create_model, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.data.loader import stacked_batches
from vitarium.training import Stepped, Task, TrainOptions, stack_key, train, train_together
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
OBJECTIVES = ["soft_distillation", "hard_distillation", "weight_distillation"]
BY_OUTPUTS = ["soft_distillation", "weight_distillation"]
"""One for each kind of a teacher's outputs: logits, and what blocks compute."""


class Killed(Exception):
    pass


def specs(tiny, objective="soft_distillation", **changes):
    own = {"teacher": "./teacher", **({"name": objective} if isinstance(objective, str) else {})}
    own |= {} if isinstance(objective, str) else objective
    stage = tiny["stages"]["pretrain"] | {
        "architecture": {"name": "vit", **SIZES},
        "objective": own,
        **changes,
    }
    return plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models


def teacher_model(num_classes=10, **changes):
    torch.manual_seed(3)
    return create_model("vit", num_classes=num_classes, **(SIZES | {"depth": 3} | changes))


class Counted(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, images):
        state = (torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), self.training)
        self.seen.append((len(images), *state))
        return self.model(images)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_teacher_is_asked_once_for_each_batch(tiny, tmp_path, precision):
    teacher = Counted(teacher_model()).train()
    options = TrainOptions(precision=precision)
    own = specs(tiny)[0]
    member = TrainState(own, ModelFolder(tmp_path / own.id), None, options, teacher)
    alone = Trainer([member], options)
    alone.training_mode()
    teacher.seen.clear()  # a look at one image
    for number, batch in enumerate(stacked_batches([member.batches], 1)):
        alone.step(batch, 1, number)
    assert teacher.seen == [(32, True, precision == "bf16", False)] * 3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_in_parts_learns_the_same_of_the_teacher(tiny, tmp_path, objective):
    weights = []
    for parts in (1, 4):
        own = specs(tiny, objective, accumulation=parts, optimizer={"name": "sgd", "lr": 0.1})[0]
        folder = ModelFolder(tmp_path / own.id)
        member = TrainState(own, folder, None, TrainOptions(), teacher_model())
        trainer = Trainer([member], TrainOptions())
        trainer.training_mode()
        for number, batch in enumerate(stacked_batches([member.batches], 1)):
            trainer.step(batch, 1, number)
        weights.append(dict(member.model.named_parameters()))
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-6), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_teacher_is_not_changed(tiny, tmp_path, objective):
    teacher = teacher_model()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    own = specs(tiny, objective, epochs=1)[0]
    folder = ModelFolder(tmp_path / own.id)
    assert train(own, folder, teacher=teacher) == "finished"
    assert all(torch.equal(before[name], now) for name, now in teacher.state_dict().items())
    assert all(weight.grad is None for weight in teacher.parameters())
    assert not any(module._forward_hooks for module in teacher.modules())
    assert not torch.equal(folder.weights(0)["head.weight"], folder.weights(1)["head.weight"])


@pytest.mark.parametrize("objective", BY_OUTPUTS)
def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, objective):
    own = specs(
        tiny, objective, augmentation={"name": "standard", "mixup": 0.8}, clip_grad_norm=1.0
    )[0]

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    broken, whole = (ModelFolder(tmp_path / name / own.id) for name in ("broken", "whole"))
    with pytest.raises(Killed):
        train(own, broken, teacher=teacher_model(), report=kill)
    train(own, broken, teacher=teacher_model())
    train(own, whole, teacher=teacher_model())
    assert broken.checkpoint() == whole.checkpoint()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stack_learns_what_each_model_learns_alone(tiny, tmp_path, objective):
    some = specs(tiny, objective)
    assert len({stack_key(own) for own in some}) == 1
    teachers = [teacher_model(), teacher_model()]
    torch.nn.init.normal_(teachers[1].head.weight)
    alone = [ModelFolder(tmp_path / "alone" / own.id) for own in some]
    stack = [ModelFolder(tmp_path / "stack" / own.id) for own in some]
    for own, folder, teacher in zip(some, alone, teachers, strict=True):
        train(own, folder, teacher=teacher)
    train_together([Task(o, f, None, t) for o, f, t in zip(some, stack, teachers, strict=True)])
    for one, other in zip(alone, stack, strict=True):
        losses = [[e.metrics.get("train_loss", 0) for e in f.epochs()] for f in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_models_whose_parents_differ_are_not_stacked(tiny):
    tiny["stages"]["finetune"]["objective"] = "soft_distillation"
    children = plan(Blueprint.read(tiny)).of_stage("finetune")
    keys = {child.id: stack_key(child) for child in children}
    assert len(children) == 4
    for child in children:
        same = [o.id for o in children if keys[o.id] == keys[child.id]]
        assert same == [o.id for o in children if o.parent == child.parent]


@pytest.mark.parametrize("objective", BY_OUTPUTS)
def test_a_stack_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, objective):
    some = specs(tiny, objective)

    def tasks(name):
        return [Task(o, ModelFolder(tmp_path / name / o.id), None, teacher_model()) for o in some]

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 2):
            raise Killed

    with pytest.raises(Killed):
        train_together(tasks("broken"), report=kill)
    train_together(tasks("broken"))
    train_together(tasks("whole"))
    for one, other in zip(tasks("broken"), tasks("whole"), strict=True):
        assert one.folder.checkpoint() == other.folder.checkpoint()


def test_an_objective_that_reads_blocks_is_not_compiled(tiny, tmp_path):
    own = specs(tiny, "weight_distillation")[0]
    with pytest.raises(InvalidInput, match=r"'weight_distillation' looks into .* without c"):
        train(own, ModelFolder(tmp_path / own.id), options=TrainOptions(compiled=True))


def test_an_objective_that_reads_blocks_has_every_token_computed(tiny, tmp_path):
    seen = {}
    for objective in ("soft_distillation", "weight_distillation"):
        own = specs(tiny, objective)[0]
        folder = ModelFolder(tmp_path / own.id)
        member = TrainState(own, folder, None, TrainOptions(), teacher_model())
        member.model.blocks[-1].mlp.register_forward_hook(
            lambda _, given, output, name=objective: seen.__setitem__(name, output.shape[1])
        )
        member.model(torch.zeros(2, 1, 8, 8))
    assert seen == {"soft_distillation": 1, "weight_distillation": 5}


def test_an_objective_with_a_teacher_needs_one(tiny, tmp_path):
    own = specs(tiny)[0]
    with pytest.raises(InvalidInput, match="'soft_distillation' needs a teacher"):
        train(own, ModelFolder(tmp_path / own.id))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_teacher_of_other_classes_is_refused_with_both_numbers(tiny, tmp_path, objective):
    own = specs(tiny, objective)[0]
    with pytest.raises(InvalidInput, match=r"for 7 classes and the student for 10 classes: choose"):
        train(own, ModelFolder(tmp_path / own.id), teacher=teacher_model(7))


def test_a_teacher_of_larger_images_is_refused(tiny, tmp_path):
    own = specs(tiny)[0]
    with pytest.raises(InvalidInput, match=r"cannot take the student's images \(1x8x8\)"):
        train(own, ModelFolder(tmp_path / own.id), teacher=teacher_model(img_size=16))


def test_a_stage_without_a_parent_cannot_learn_from_it(tiny):
    with pytest.raises(
        InvalidConfig, match=r"stages.pretrain.objective.teacher: there is no paren"
    ):
        specs(tiny, {"name": "soft_distillation", "teacher": "parent"})


def test_scores_are_by_labels_alone(tiny, tmp_path):
    teacher = Counted(teacher_model())
    own = specs(tiny, epochs=1)[0]
    folder = ModelFolder(tmp_path / own.id)
    train(own, folder, teacher=teacher)
    assert {"val_loss", "val_accuracy", "test_accuracy"} <= folder.epochs()[1].metrics.keys()
    assert [images for images, *_ in teacher.seen].count(32) == 3
