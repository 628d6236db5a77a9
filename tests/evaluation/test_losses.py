"""What every measure of the loss landscape stands on: the loss at given parameters."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.losses import gradient, losses, parameters

OF_A_MODEL = {
    "gradient_norm": {},
    "sharpness": {},
    "loss_slice": {"points": 2},
    "hessian_trace": {"probes": 1},
    "hessian_eigenvalues": {"tolerance": 0.5},
}
OF_A_PAIR = {"barrier": {"points": 3}, "mode_connectivity": {"points": 3, "steps": 2}}


@pytest.fixture(params=sorted(OF_A_MODEL | OF_A_PAIR))
def measured(request, subject, other):
    """A landscape measure on few images, and what it is called with."""
    name = request.param
    called = choose("measure", name, num_images=20, **(OF_A_MODEL | OF_A_PAIR)[name])
    return called, [subject, other] if name in OF_A_PAIR else [subject]


def brute_force(model, examples):
    """Mean cross-entropy and error in float64, an image at a time."""
    model = deepcopy(model).double()
    found = []
    for batch in examples.batches(1):
        logits = model(batch.images.double())[0]
        label = batch.labels[0]
        found.append([logits.logsumexp(0) - logits[label], logits.argmax() != label])
    return torch.tensor(found, dtype=torch.float64).mean(0).tolist()


def test_losses_are_those_of_a_float64_loop(subject, other):
    examples = subject.examples.first(50)
    points = [parameters(model) for model in (subject.model, other.model)]
    found = losses(subject.model, lambda: points, examples, batch_size=20)
    for place, model in enumerate((subject.model, other.model)):
        expected = brute_force(model, examples)
        assert found.loss[place].item() == pytest.approx(expected[0], rel=1e-5)
        assert found.error[place].item() == pytest.approx(expected[1])


def test_gradient_is_what_a_backward_pass_gives_whatever_the_batches(subject):
    examples = subject.examples.first(50)
    batch = next(examples.batches(50))
    model = deepcopy(subject.model).double().requires_grad_(True)
    F.cross_entropy(model(batch.images.double()), batch.labels).backward()
    expected = losses(subject.model, lambda: [parameters(subject.model)], examples).loss.item()
    for size in (50, 20):
        value, slopes = gradient(subject.model, examples, size)
        assert value == pytest.approx(expected)
        for name, parameter in model.double().named_parameters():
            torch.testing.assert_close(slopes[name].double(), parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_slope_of_a_parameter_without_use_is_zero(subject):
    subject.model.spare = nn.Parameter(torch.ones(3))
    _, slopes = gradient(subject.model, subject.examples.first(10))
    assert torch.equal(slopes["spare"], torch.zeros(3))


def test_a_measure_gives_the_same_again_and_leaves_the_models_as_they_were(measured):
    called, subjects = measured
    before = [_state(subject.model) for subject in subjects]
    torch.manual_seed(3)
    first = called(*subjects)
    drawn = torch.rand(2)
    torch.manual_seed(4)
    assert called(*subjects) == first
    assert [_state(subject.model) for subject in subjects] == before
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), drawn)


def test_a_model_whose_outputs_are_no_classes_has_no_loss(measured):
    called, subjects = measured
    subjects[-1] = replace(subjects[-1], is_classifier=False)
    with pytest.raises(NotApplicable, match=f"{subjects[-1].name}: its outputs are not the 10"):
        called(*subjects)


def _state(model):
    """Everything a measure could leave behind: bits, gradients, modes, flags, hooks."""
    return (
        [(name, bytes(tensor.numpy())) for name, tensor in model.state_dict().items()],
        [(p.requires_grad, p.grad, id(p)) for p in model.parameters()],
        [
            (m.training, getattr(m, "fused_attn", None), len(m._forward_hooks))
            for m in model.modules()
        ],
        torch.backends.cuda.flash_sdp_enabled(),
    )
