"""Scores of weights on held-out images."""

import pytest
import torch
from torch import nn

from vitarium.core.errors import NotApplicable
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.scoring import Scorer, load


@pytest.fixture
def examples(grown_zoo):
    sources = ModelLoader(grown_zoo, data=None, device="cpu", data_dir=None)
    return sources.examples(grown_zoo.ids()[0], "val")


def test_scores_are_those_of_plain_torch(grown_zoo, examples):
    first, other = grown_zoo.models().query("stage == 'pretrain'")["id"]
    scorer = Scorer(grown_zoo.load(first).eval(), examples, batch_size=7)
    found = scorer.score(grown_zoo.state_dict(other))
    (batch,) = examples.batches(len(examples))
    with torch.no_grad():
        logits = grown_zoo.load(other).eval()(batch.images).double()
    right = (logits.argmax(1) == batch.labels).double().mean().item()
    assert found.accuracy == pytest.approx(right, abs=1e-12)
    loss = nn.functional.cross_entropy(logits, batch.labels).item()
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.metrics("val") == {"val_accuracy": found.accuracy, "val_loss": found.loss}


def test_what_is_left_out_is_the_models_own():
    model = nn.Linear(2, 2)
    bias = model.bias.detach().clone()
    load(model, {"weight": torch.ones(2, 2, dtype=torch.float64)})
    assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.equal(model.bias, bias)


def test_so_many_images_are_looked_at(grown_zoo, examples):
    model = grown_zoo.load(grown_zoo.ids()[0])
    assert len(Scorer(model, examples, 20).examples) == 20
    assert len(Scorer(model, examples).examples) == len(examples)


def test_outputs_that_are_no_classes_are_refused(examples):
    size = torch.Size(examples.input_size).numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 3))
    with pytest.raises(NotApplicable, match=r"outputs, \[3\] of an image, are not the 10 classes"):
        Scorer(model, examples)
