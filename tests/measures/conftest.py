"""Models whose losses and predictions are known, on the images that `examples` gives."""

from typing import Any

import pytest
import torch

from reference import softmax_regression as softmax_regression_module
from vitarium.evaluation.inputs import EvalModel, Predictions


@pytest.fixture
def linear(examples) -> EvalModel:
    """Softmax regression on the pixels: its loss has derivatives in closed form."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1, generator=generator)
    return EvalModel("cccccccccccc@1", model.eval().requires_grad_(False), examples)


@pytest.fixture(scope="session")
def softmax_regression() -> Any:
    """Derivatives of its loss in closed form: reference/softmax_regression.py."""
    return softmax_regression_module


@pytest.fixture
def predictions(subject) -> Predictions:
    with torch.no_grad():
        logits = torch.cat([subject.model(batch.images) for batch in subject.examples.batches()])
    return Predictions(logits, subject.examples.labels, subject.examples.dataset.classes)


@pytest.fixture
def other_predictions(other) -> Predictions:
    with torch.no_grad():
        logits = torch.cat([other.model(batch.images) for batch in other.examples.batches()])
    return Predictions(logits, other.examples.labels, other.examples.dataset.classes)
