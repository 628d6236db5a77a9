"""The three objectives as a whole: against a brute force crop by crop, and who learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitarium import create_model
from vitarium.core import seeds
from vitarium.core.registry import section
from vitarium.data.batch import Batch
from vitarium.objectives.self_distillation._crop_tokens import encode_crops

SMALL = {"prototypes": 10, "hidden_dim": 8, "bottleneck_dim": 6}
VIT = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 2}
IMAGES, LOCAL = 3, 2
NAMES = ("dino", "ibot", "dinov2")


def build(name, **settings):
    """An objective with its model and companions, whose teacher is another than the student."""
    objective = section("objective", {"name": name, **SMALL, **settings})
    make = objective.facts["companions"]
    with seeds.seeded(0):
        model = create_model("vit", num_classes=0, **VIT)
        companions = make(objective.config, model, 0)
        with torch.no_grad():
            for parameter in [*companions.teacher.parameters(), *companions.head.parameters()]:
                parameter += 0.2 * torch.randn_like(parameter)
            companions.center.normal_(std=0.1)
            if name != "dino":
                companions.patch_center.normal_(std=0.1)
                companions.mask_token.normal_()
    return objective, model, companions


def batch_for(name, *, local=True, undistorted=False):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2 * IMAGES, 1, 8, 8, generator=generator)
    labels = torch.zeros(IMAGES, dtype=torch.long)
    others = {}
    if local:
        others["local"] = torch.randn(LOCAL * IMAGES, 1, 4, 4, generator=generator)
    if undistorted:
        others["undistorted"] = torch.randn(2 * IMAGES, 1, 16, 16, generator=generator)
    masks = None
    if name != "dino":
        masks = torch.rand(2 * IMAGES, 16, generator=generator) < 0.4
        masks[1] = False
    return Batch(images, labels, labels, masks=masks, other_views=others)


def softmax(logits, temperature):
    scaled = logits / temperature
    exp = np.exp(scaled - scaled.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def entropy(target, logits):
    """Cross-entropy of a student's logits [k] with a target [k]."""
    return float(-(target * np.log(softmax(logits, 0.1))).sum())


def numpy(tensor):
    return tensor.detach().double().numpy()


def sinkhorn(logits, temperature):
    q = np.exp(logits / temperature)
    for _ in range(3):
        q /= q.sum(0, keepdims=True)
        q /= q.sum(1, keepdims=True)
    return q


def koleo(features):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = [
        min(np.linalg.norm(u - v) for j, v in enumerate(unit) if j != i) for i, u in enumerate(unit)
    ]
    return -float(np.mean(np.log(distances)))


def networks(model, companions, batch):
    """Logits of student and teacher, computed crop by crop in float64."""
    model, companions = model.double(), companions.double()
    masks = [None] * 2 * IMAGES if batch.masks is None else batch.masks.unsqueeze(1)
    token = getattr(companions, "mask_token", None)
    student = [
        encode_crops(model, image[None].double(), mask, None if mask is None else token)
        for image, mask in zip(batch.images, masks, strict=True)
    ]
    features = [pooled for pooled, _ in student]
    local = batch.other_views.get("local", [])
    features += [encode_crops(model, image[None].double())[0] for image in local]
    teacher = [encode_crops(companions.teacher.module, x[None].double()) for x in batch.images]
    patch_head = getattr(companions, "patch_head", None) or companions.head
    patch_teacher = getattr(companions, "patch_teacher_head", None) or companions.teacher_head
    # a head normalizes in float32, so its layers are called one by one
    return {
        "features": numpy(torch.cat(features)),
        "student": logits(companions.head, torch.cat(features)),
        "teacher": logits(companions.teacher_head.module, torch.cat([p for p, _ in teacher])),
        "student patches": logits(patch_head, torch.cat([p for _, p in student])),
        "teacher patches": logits(patch_teacher.module, torch.cat([p for _, p in teacher])),
    }


def logits(head, features):
    bottleneck = numpy(head.mlp(features))
    unit = bottleneck / np.linalg.norm(bottleneck, axis=-1, keepdims=True)
    rows = numpy(head.prototypes.direction)
    return (
        unit @ (rows / np.linalg.norm(rows, axis=1, keepdims=True) * numpy(head.prototypes.gain)).T
    )


def brute_force(name, config, values, batch, companions):
    balanced = getattr(config, "targets", "centering") == "sinkhorn"
    masks = None if batch.masks is None else batch.masks.numpy()
    if balanced:
        targets = sinkhorn(values["teacher"], 0.04)
    else:
        targets = softmax(values["teacher"] - numpy(companions.center), 0.04)
    views = len(values["student"]) // IMAGES
    terms = [
        entropy(targets[g * IMAGES + i], values["student"][v * IMAGES + i])
        for g in range(2)
        for v in range(views)
        for i in range(IMAGES)
        if g != v
    ]
    total = np.mean(terms)
    if name == "dino":
        return total
    if balanced:
        of_patches = np.zeros_like(values["teacher patches"])
        of_patches[masks] = sinkhorn(values["teacher patches"][masks], 0.04)
    else:
        of_patches = softmax(values["teacher patches"] - numpy(companions.patch_center), 0.04)
    by_crop = []
    for crop in range(2 * IMAGES):
        masked = [
            entropy(of_patches[crop, n], values["student patches"][crop, n])
            for n in range(16)
            if masks[crop, n]
        ]
        by_crop.append(np.mean(masked) if masked else 0.0)
    total += np.mean(by_crop)
    if name == "dinov2":
        globals_ = values["features"][: 2 * IMAGES]
        total += 0.1 * (koleo(globals_[:IMAGES]) + koleo(globals_[IMAGES:]))
    return total


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dino", {}),
        ("ibot", {}),
        ("ibot", {"shared_head": False}),
        ("dinov2", {}),
        ("dinov2", {"targets": "sinkhorn"}),
    ],
)
def test_each_loss_is_its_brute_force_crop_by_crop(name, settings, local):
    objective, model, companions = build(name, **settings)
    batch = batch_for(name, local=local)
    loss = objective(model, batch, companions).value.item()
    values = networks(model, companions, batch)
    expected = brute_force(name, objective.config, values, batch, companions)
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_teacher_and_center_get_no_gradient_and_all_else_does(name):
    objective, model, companions = build(name, gram={"from_epoch": 1})
    objective(model, batch_for(name, undistorted=True), companions).value.backward()
    for parameter, weight in companions.named_parameters():
        is_state = "teacher" in parameter or not weight.requires_grad
        assert (weight.grad is None) == is_state, parameter
    assert all(weight.grad is not None for weight in model.parameters())
    assert not companions.center.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_exchanging_the_views_leaves_the_loss(name):
    objective, model, companions = build(name)
    batch = batch_for(name)
    exchanged = {"images": batch.images.roll(IMAGES, 0)}
    if batch.masks is not None:
        exchanged["masks"] = batch.masks.roll(IMAGES, 0)
    loss = objective(model, replace(batch, **exchanged), companions).value
    torch.testing.assert_close(loss, objective(model, batch, companions).value)


@pytest.mark.parametrize("name", NAMES)
def test_the_gram_teacher_sees_the_larger_views_and_its_loss_is_added(name):
    plain, model, companions = build(name)
    batch = batch_for(name, undistorted=True)
    without = plain(model, batch, companions).value
    objective, model, companions = build(name, gram={"from_epoch": 2, "weight": 3.0})
    companions.gram.weight.fill_(0.0)
    torch.testing.assert_close(objective(model, batch, companions).value, without)
    companions.gram.weight.fill_(3.0)
    loss = objective(model, batch, companions)
    torch.testing.assert_close(loss.value, without + loss.metrics["gram_loss"])
    same_size = objective(model, replace(batch, other_views={"local": batch.other_views["local"]}),
                          companions)  # fmt: skip
    assert same_size.metrics["gram_loss"] != loss.metrics["gram_loss"]
    if name == "dino":  # it hides no patches, and the Gram teacher is the student as it began
        assert same_size.metrics["gram_loss"] < 1e-8


def test_a_masked_patch_is_hidden_before_positions_are_added():
    objective, model, companions = build("ibot")
    batch = batch_for("ibot")
    hidden = batch.masks[0].view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    changed = batch.images.clone()
    changed[0, 0][hidden] += 5.0
    pooled = [
        encode_crops(model, images, batch.masks, companions.mask_token)[0]
        for images in (batch.images, changed)
    ]
    torch.testing.assert_close(*pooled)
    different = objective(model, replace(batch, images=changed), companions)
    assert different.value != objective(model, batch, companions).value  # the teacher sees it


def test_teacher_entropy_is_a_share_of_log_k_and_statistics_are_means():
    objective, model, companions = build("dino")
    batch = batch_for("dino")
    loss = objective(model, batch, companions)
    values = networks(model, companions, batch)["teacher"]
    targets = softmax(values - numpy(companions.center), 0.04)
    expected = -(targets * np.log(targets)).sum(1).mean() / math.log(10)
    assert loss.metrics["teacher_entropy"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(loss.statistics["center"], torch.tensor(values.mean(0)).float())
    norm = companions.center.norm().item()
    assert loss.metrics["center_norm"].item() == pytest.approx(norm, rel=1e-5)
