"""DeiT-LT: two tokens with a head each, a teacher's class, and weights for rare classes."""

import pytest
import torch
from torch import nn

from vitarium import Blueprint, create_model, plan
from vitarium.architectures.features import features
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.data.batch import Batch
from vitarium.objectives.companions import Progress
from vitarium.objectives.distillation.base import OUTPUTS
from vitarium.objectives.distillation.deit_lt import ClassWeights, class_weights
from vitarium.training import Stepped, stack_key, train, train_together
from vitarium.training.loop import Task
from vitarium.zoo import ModelFolder

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
CIFAR10_IF100 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
EPOCH = {"epochs": 10, "step": 0, "steps": 10}


@pytest.fixture
def student():
    torch.manual_seed(0)
    model = create_model("distilled_vit", num_classes=10, **SIZES)
    choose("head", "token_heads")(model, 10)
    return model.double()


def batch(logits, seed=1):
    stream = torch.Generator().manual_seed(seed)
    images = torch.randn(len(logits), 1, 8, 8, generator=stream, dtype=torch.float64)
    targets = torch.rand(len(logits), 10, generator=stream, dtype=torch.float64)
    labels = targets.argmax(1)
    return Batch(images, labels, targets / targets.sum(1, keepdim=True), {OUTPUTS: logits})


def random_logits(seed=2):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(6, 10, generator=stream, dtype=torch.float64)


def weights(counts, epoch=1, **settings):
    config = choose("objective", "deit_lt", **settings).config
    companions = ClassWeights(config, len(counts)).double()
    companions.before_training(torch.tensor(counts))
    companions.before_step(Progress(epoch, **EPOCH))
    return companions


def test_class_weights_are_those_of_long_tailed_cifar_10():
    counts = [int(5000 * 0.01 ** (c / 9)) for c in range(10)]
    assert counts == CIFAR10_IF100
    assert sum(counts) == 12_406
    values = class_weights(torch.tensor(counts), 0.9999)
    expected = [0.051, 0.077, 0.121, 0.195, 0.319, 0.525, 0.868, 1.443, 2.409, 3.993]
    assert [round(value, 3) for value in values.tolist()] == expected
    assert values.sum().item() == pytest.approx(10)
    assert values.tolist() == sorted(values.tolist())


@pytest.mark.parametrize(("counts", "beta"), [([7] * 10, 0.9999), (CIFAR10_IF100, 0.0)])
def test_balanced_classes_and_beta_0_weigh_all_the_same(counts, beta):
    assert torch.allclose(class_weights(torch.tensor(counts), beta), torch.ones(10).double())


def test_weights_count_from_their_epoch_on():
    settings = {"reweight_from": 3}
    assert torch.equal(weights(CIFAR10_IF100, 2, **settings).weights, torch.ones(10).double())
    expected = class_weights(torch.tensor(CIFAR10_IF100), 0.9999)
    assert torch.allclose(weights(CIFAR10_IF100, 3, **settings).weights, expected, rtol=1e-6)
    assert torch.equal(weights(CIFAR10_IF100, 9).weights, torch.ones(10).double())


def test_a_class_without_images_has_no_weight():
    with pytest.raises(InvalidInput, match="class 2 has no training images"):
        weights([3, 1, 0], reweight_from=1)
    assert torch.equal(weights([3, 1, 0]).weights, torch.ones(3).double())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_loss_is_that_of_both_heads_and_the_weighted_class_of_the_teacher(student, alpha):
    logits = random_logits()
    images = batch(logits)
    companions = weights(CIFAR10_IF100, 1, reweight_from=1)
    objective = choose("objective", "deit_lt", alpha=alpha, reweight_from=1)
    value = objective(student, images, companions).value
    tokens = features(student, images.images)
    heads = [layer(tokens[:, 16 * i : 16 * i + 16]) for i, layer in enumerate(student.head)]
    chosen, expected = logits.argmax(1), 0.0
    for row in range(6):
        log_q = (heads[0][row].exp() / heads[0][row].exp().sum()).log()
        expected += -(1 - alpha) * (images.targets[row] * log_q).sum() / 6
    expected += alpha * nn.functional.cross_entropy(heads[1], chosen, companions.weights)
    assert torch.allclose(value, expected, rtol=1e-12)


def test_weights_cancel_in_a_batch_of_a_single_class(student):
    logits = random_logits() + 100 * torch.eye(10, dtype=torch.float64)[4]
    weighted = weights(CIFAR10_IF100, 1, reweight_from=1)
    objective = choose("objective", "deit_lt")
    values = [
        objective(student, batch(logits), each).value for each in (weighted, weights([1] * 10))
    ]
    assert torch.allclose(*values, rtol=1e-12)


def test_only_the_order_of_the_teachers_outputs_counts(student):
    objective, companions, logits = (
        choose("objective", "deit_lt"),
        weights([1] * 10),
        random_logits(),
    )
    values = [
        objective(student, batch(changed), companions).value
        for changed in (logits, 10 * logits - 3, logits.exp(), logits**3)
    ]
    assert all(torch.equal(values[0], value) for value in values)


def test_the_mean_of_both_heads_is_a_linear_head_on_both_tokens(student):
    images = batch(random_logits()).images
    first, second = student.head
    joint = nn.Linear(32, 10).double()
    with torch.no_grad():
        joint.weight.copy_(torch.cat([first.weight, second.weight], 1) / 2)
        joint.bias.copy_((first.bias + second.bias) / 2)
        tokens = features(student, images)
        assert tokens.shape == (6, 32)
        assert torch.allclose(student(images), joint(tokens), rtol=1e-12)


@pytest.mark.parametrize(
    ("width", "heads", "plain"), [(192, 3, 5_717_416), (384, 6, 22_050_664), (768, 12, 86_567_656)]
)
def test_parameters_are_those_of_deit_with_a_token_and_a_head_more(width, heads, plain):
    with torch.device("meta"):
        model = create_model("distilled_vit", num_classes=1000, embed_dim=width, num_heads=heads)
        choose("head", "token_heads")(model, 1000)
    expected = plain + 2 * width + 1000 * width + 1000
    assert sum(p.numel() for p in model.parameters()) == expected


def test_the_cosine_of_both_tokens_is_logged(student):
    images = batch(random_logits())
    loss = choose("objective", "deit_lt")(student, images, weights([1] * 10))
    first, second = features(student, images.images).detach().chunk(2, 1)
    expected = ((first * second).sum(1) / first.norm(dim=1) / second.norm(dim=1)).mean()
    assert loss.metrics["token_cosine"].item() == pytest.approx(expected.item(), abs=1e-5)


def specs(tiny, **changes):
    objective = {"name": "deit_lt", "teacher": "./t", "reweight_from": 2}
    stage = tiny["stages"]["pretrain"] | {"objective": objective}
    stage |= {"architecture": {"name": "distilled_vit", **SIZES}} | changes
    return plan(Blueprint.read(tiny | {"stages": {"pretrain": stage}})).models


def test_a_killed_run_goes_on_with_the_same_bits_and_a_stack_learns_the_same(tiny, tmp_path):
    spec, other = specs(tiny, optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.9})
    torch.manual_seed(3)
    teacher = create_model("vit", num_classes=10, **SIZES)

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    whole, killed = (ModelFolder(tmp_path / name / spec.id) for name in ("whole", "killed"))
    train(spec, whole, teacher=teacher)
    with pytest.raises(Killed):
        train(spec, killed, teacher=teacher, report=kill)
    train(spec, killed, teacher=teacher)
    assert whole.checkpoint() == killed.checkpoint()
    assert stack_key(spec) == stack_key(other) is not None
    tasks = [Task(s, ModelFolder(tmp_path / "stack" / s.id), None, teacher) for s in (spec, other)]
    train_together(tasks)
    losses = [[e.metrics["train_loss"] for e in f.epochs()[1:]] for f in (whole, tasks[0].folder)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"name": "vit", **SIZES}}, "needs a distillation token"),
        ({"head": "linear"}, "needs `head: token_heads`"),
        ({"accumulation": 2}, "no accumulation"),
        (
            {"objective": {"name": "deit_lt", "teacher": "./t", "reweight_from": 9}},
            "after the last",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(tiny, changes, message):
    with pytest.raises(InvalidConfig, match=message):
        specs(tiny, **changes)
