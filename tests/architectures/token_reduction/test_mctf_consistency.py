"""MCTF's consistency loss: what it is, and what learns by it."""

import pytest
import torch
from torch.nn import functional as F

from vitarium.architectures.base import HasAuxiliaryLoss
from vitarium.architectures.token_reduction.mctf import confident_images
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose

SIZES = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "num_heads": 2}
IMAGES = torch.randn(8, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TARGETS = F.one_hot(torch.arange(8) % 3, 3).double()


def model_of(name="mctf", depth=3, **settings):
    torch.manual_seed(0)
    model = choose("architecture", name, **SIZES, depth=depth, **settings)(3).train()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    return model.double()


@pytest.mark.parametrize("settings", [{"r": 0, "consistency_weight": 3.0}, {"r": 2}])
def test_without_fusing_or_without_weight_nothing_is_added(settings):
    model = model_of(**settings)
    assert not isinstance(model, HasAuxiliaryLoss)
    assert settings["r"] or torch.equal(model(IMAGES), model_of("vit")(IMAGES))


def test_the_loss_is_the_teacher_passs_and_errors_of_confident_images():
    """At r = 1 the teacher pass fuses nothing: it is the plain ViT."""
    model, vit = model_of(r=1, consistency_weight=3.0), model_of("vit")
    student = model_of(r=1)
    outputs = model(IMAGES)
    loss = model.auxiliary_loss(TARGETS)
    tokens, teacher_tokens = student.forward_features(IMAGES), vit.forward_features(IMAGES)
    assert torch.equal(outputs, student.head(tokens[:, 0]))
    confident = [p for p in range(8) if outputs[p].softmax(0)[p % 3] > 0.4]
    assert 0 < len(confident) < 8
    errors = [((teacher_tokens[p, 0].detach() - tokens[p, 0]) ** 2).mean() for p in confident]
    consistency = torch.stack(errors).mean()
    teacher_loss = F.cross_entropy(vit.head(teacher_tokens[:, 0]), torch.arange(8) % 3)
    assert consistency > 0
    torch.testing.assert_close(loss.value, teacher_loss + 3 * consistency)
    torch.testing.assert_close(loss.metrics["consistency_loss"], consistency.detach())
    torch.testing.assert_close(loss.metrics["teacher_loss"], teacher_loss.detach())
    assert loss.metrics["confident_share"] == len(confident) / 8
    loss.value.backward()
    (teacher_loss + 3 * consistency).backward()  # of two models, whose gradients add up
    others = dict(vit.named_parameters())
    for name, parameter in student.named_parameters():
        expected = [p.grad for p in (parameter, others[name]) if p.grad is not None]
        torch.testing.assert_close(model.get_parameter(name).grad, sum(expected))


def test_the_features_of_the_teacher_pass_do_not_learn():
    model = model_of(r=1, consistency_weight=3.0)
    model(IMAGES)
    assert model.recorded.features.requires_grad
    assert model.recorded.teacher_outputs.requires_grad
    assert not model.recorded.teacher_features.requires_grad


@pytest.mark.parametrize("fusing", [{"r": 3}, {"fused_share": 0.2}])
def test_the_teacher_pass_fuses_fewer_patches_at_random(fusing):
    model, counts = model_of(depth=4, consistency_weight=1.0, **fusing), []
    model.blocks[1].register_forward_hook(lambda _, before, after: counts.append(after.shape[1]))
    for seed in range(12):
        torch.manual_seed(seed)
        model(IMAGES)
    students = model.config.fused_in(1, 16)
    assert set(counts[::2]) == {17 - students}
    assert set(counts[1::2]) == {17, 16, 15}
    assert {block.config for block in model.blocks} == {model.config}


def test_no_loss_where_no_image_is_confident():
    model = model_of(r=1, consistency_weight=3.0)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    model(IMAGES)
    loss = model.auxiliary_loss(TARGETS)
    assert loss.metrics["consistency_loss"] == 0
    assert loss.value == loss.metrics["teacher_loss"]


def test_labels_of_a_mixed_image_are_confident_together():
    outputs = torch.tensor([[0.3, 0.2, 0.1, 0.4]]).log()
    smooth = torch.full((4,), 0.025)
    one, mixed = smooth.clone(), smooth.clone()
    one[0], mixed[0], mixed[1] = 0.925, 0.7, 0.25
    targets = torch.stack([one, mixed, F.one_hot(torch.tensor(3), 4) + 0.0 * smooth])
    confident = confident_images(outputs.expand(3, -1) + torch.tensor([0, 0, 0, 1e-3]), targets)
    assert confident.tolist() == [False, True, True]


def test_in_eval_mode_there_is_one_pass():
    model = model_of(r=3, consistency_weight=3.0).eval()
    assert torch.equal(model(IMAGES), model_of(r=3).eval()(IMAGES))
    assert model.recorded is None
    with pytest.raises(InvalidInput, match="choose one whose outputs are classes"):
        model.auxiliary_loss(TARGETS)


def test_other_outputs_than_classes_are_refused():
    model = model_of(r=3, consistency_weight=3.0)
    model(IMAGES)
    with pytest.raises(InvalidInput, match="or set consistency_weight to 0"):
        model.auxiliary_loss(TARGETS[:, :2])
