"""What starts from a model of another normalization sees images as that model saw them."""

import json

import pytest
import torch
from torch.nn import functional as F

from vitarium import grow
from vitarium.core.registry import section
from vitarium.data.load import load

DIGITS = section("dataset", "digits")
CLASSES = json.dumps([str(n) for n in range(10)])
KNOWN = {"mean": "[0.9]", "std": "[0.2]", "classes": CLASSES}
CHILD = {"data": "digits", "epochs": 1, "batch_size": 32, "optimizer": "sgd"}
PLAIN = {"workers": 0, "progress": False, "precision": "fp32", "compiled": False, "stacked": 1}


def loss(zoo, ref, mean, std):
    """Of a model on the test images, normalized here."""
    part = load(DIGITS).test
    with torch.no_grad():
        outputs = zoo.load(*ref)((part.images.float() / 255 - mean) / std)
    return F.cross_entropy(outputs, part.labels).item()


def test_a_child_with_its_imported_parents_head_starts_as_good_as_that(grown_zoo, imported_digits):
    (parent,) = imported_digits(grown_zoo, KNOWN)
    start = {"models": [parent], "keep_head": True}
    stages = {
        "child": {**CHILD, "start": start},
        "grandchild": {**CHILD, "start": {"stage": "child", "keep_head": True}},
        "anew": {**CHILD, "start": start, "normalization": "data"},
    }
    growth = grow({"name": "more", "stages": stages}, grown_zoo, **PLAIN)
    assert growth.complete
    data = load(DIGITS)
    for stage, mean, std in (
        ("child", 0.9, 0.2),
        ("grandchild", 0.9, 0.2),
        ("anew", data.mean[0], data.std[0]),
    ):
        (spec,) = growth.plan.of_stage(stage)
        initial, last = (epoch.metrics["test_loss"] for epoch in grown_zoo.folder(spec.id).epochs())
        before = loss(grown_zoo, (spec.parent, spec.parent_epoch), mean, std)
        assert initial == pytest.approx(before, rel=1e-5)
        assert last == pytest.approx(loss(grown_zoo, (spec.id, 1), mean, std), rel=1e-5)
