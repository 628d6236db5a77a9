"""SimKD: features of a teacher through a projector, and its classifier, which does not learn."""

import pytest
import torch
from torch import nn

from vitarium import Blueprint, create_model, plan
from vitarium.architectures.features import features
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.data.batch import Batch
from vitarium.objectives.distillation.simkd import head_of, last_layer, prepare
from vitarium.training import stack_key, train, train_together
from vitarium.training.loop import Task
from vitarium.zoo import ModelFolder

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "depth": 1, "num_heads": 2}
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def model(embed_dim=16, head=None, seed=0, **settings):
    torch.manual_seed(seed)
    built = create_model("vit", num_classes=10, **SIZES, embed_dim=embed_dim)
    if head:
        choose("head", head, **settings)(built, 10)
    return built.eval()


def outputs_of(teacher, student):
    config = choose("objective", "simkd").config
    prepare(config, student, True)
    return get("objective", "simkd").facts["teacher_outputs"](config, teacher, student, IMAGES[:1])


def batch(teacher, student):
    with torch.no_grad():
        taught = outputs_of(teacher, student)(IMAGES)
    labels = torch.arange(6)
    return Batch(IMAGES, labels, torch.eye(10)[labels], taught)


@pytest.mark.parametrize(("width", "parameters"), [(384, 259_200), (192, 102_336)])
def test_the_projector_has_the_published_number_of_parameters(width, parameters):
    student = create_model("vit", num_classes=10, embed_dim=width, depth=1)
    choose("head", "reused_classifier", width=768)(student, 10)
    assert sum(p.numel() for p in student.head.projector.parameters()) == parameters
    assert [type(layer) for layer in student.head.projector][-1] is nn.Linear


def test_the_loss_is_the_mean_squared_difference_of_features():
    teacher, student = model(24, seed=1), model(head="reused_classifier", width=24)
    value = choose("objective", "simkd")(student, batch(teacher, student)).value
    first, second, third = (student.head.projector[i].double() for i in (0, 2, 4))
    own = features(student, IMAGES).double()
    projected = third(second(first(own).clamp_min(0)).clamp_min(0))
    expected = sum(
        (a - b) ** 2
        for a, b in zip(
            projected.flatten().tolist(), features(teacher, IMAGES).flatten().tolist(), strict=True
        )
    )
    assert value.item() == pytest.approx(expected / (6 * 24), rel=1e-5)


@pytest.mark.parametrize("head", [None, "mlp", "reused_classifier"])
def test_equal_features_give_the_teachers_logits_bit_for_bit(head):
    settings = {"hidden_dim": 16} if head == "mlp" else {}
    teacher, student = model(seed=1, head=head, **settings), model(head="reused_classifier")
    outputs_of(teacher, student)
    inputs, _ = last_layer(teacher)
    student.head.projector = nn.Identity()
    assert torch.equal(student.head(inputs(IMAGES)), teacher(IMAGES))


def test_the_classifier_gets_no_gradient():
    teacher, student = model(24, seed=1), model(head="reused_classifier", width=24)
    choose("objective", "simkd")(student, batch(teacher, student)).value.backward()
    assert all(p.grad is None for p in student.head.classifier.parameters())
    assert all(p.grad is not None for p in student.head.projector.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_last_relu_cannot_reach_negative_features():
    student = model(head="reused_classifier", width=24, last_activation=True)
    assert (student.head.projector(features(student, IMAGES)) >= 0).all()


def test_widths_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match=r"width 24, and .* gives 16: set .*width: 24"):
        outputs_of(model(24), model(head="reused_classifier"))
    with pytest.raises(InvalidInput, match="a MeanOfHeads: simkd reuses a linear classifier"):
        outputs_of(
            model(head="ensemble", heads=("linear", "linear")), model(head="reused_classifier")
        )
    with pytest.raises(InvalidInput, match="reused_classifier"):
        head_of(model())


def specs(tiny, **changes):
    stage = tiny["stages"]["pretrain"] | {"objective": {"name": "simkd", "teacher": "./t"}}
    stage |= {"head": {"name": "reused_classifier", "width": 24}} | changes
    return plan(Blueprint.read(tiny | {"stages": {"pretrain": stage}})).models


def test_it_is_trained_to_a_checkpoint_with_the_teachers_classifier(tiny, tmp_path):
    spec, other = specs(tiny)
    assert spec.recipe.head.name == "reused_classifier"
    assert stack_key(spec) == stack_key(other) is not None
    teacher, folder = model(24, seed=1), ModelFolder(tmp_path / spec.id)
    train(spec, folder, teacher=teacher)
    for epoch in (0, 2):
        weights = folder.weights(epoch)
        assert torch.equal(weights["head.classifier.weight"], teacher.head.weight)
        assert torch.equal(weights["head.classifier.bias"], teacher.head.bias)
    losses = [epoch.metrics["train_loss"] for epoch in folder.epochs()[1:]]
    assert losses[1] < losses[0]
    stacked = [
        Task(s, ModelFolder(tmp_path / "stack" / s.id), None, teacher) for s in (spec, other)
    ]
    train_together(stacked)
    of_stack = [epoch.metrics["train_loss"] for epoch in stacked[0].folder.epochs()[1:]]
    assert of_stack == pytest.approx(losses, rel=1e-4)


def test_the_head_that_it_needs_is_its_default_and_no_other_is_taken(tiny):
    stage = tiny["stages"]["pretrain"] | {"objective": {"name": "simkd", "teacher": "./t"}}
    (spec, _) = plan(Blueprint.read(tiny | {"stages": {"pretrain": stage}})).models
    assert spec.recipe.head.name == "reused_classifier"
    with pytest.raises(InvalidConfig, match="needs `head: reused_classifier`"):
        specs(tiny, head="linear")
