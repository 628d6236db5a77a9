"""Small trained models on real images, as measures are given them."""

import importlib.util
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from vitarium import create_model
from vitarium.data import dataset
from vitarium.data.batches import Batches
from vitarium.measures.examples import Examples
from vitarium.measures.subjects import Predictions, Subject
from vitarium.registry import section

INPUT_SIZE = (1, 8, 8)


@pytest.fixture(scope="session")
def examples() -> Examples:
    """The 359 test images of scikit-learn's digits, of 8 by 8 pixels, in ten classes."""
    data = dataset.load(section("dataset", "digits"))
    augmentation = section("augmentation", "standard")(INPUT_SIZE, data.num_classes)
    return Examples(Batches(data, augmentation, INPUT_SIZE, batch_size=1, seed=0), "test")


def trained(examples: Examples, seed: int) -> torch.nn.Module:
    """A ViT of two blocks, two heads and width 16, after 300 steps: most images are right."""
    torch.manual_seed(seed)
    model = create_model(
        "vit",
        num_classes=10,
        img_size=8,
        patch_size=2,
        in_chans=1,
        embed_dim=16,
        depth=2,
        num_heads=2,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    batches = list(examples.of("train").batches(64))
    for step in range(300):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def _models(examples: Examples) -> list[torch.nn.Module]:
    return [trained(examples, seed) for seed in (1, 2)]


@pytest.fixture
def subject(_models, examples) -> Subject:
    return Subject("aaaaaaaaaaaa@1", deepcopy(_models[0]), examples)


@pytest.fixture
def other(_models, examples) -> Subject:
    """A model of another seed."""
    return Subject("bbbbbbbbbbbb@1", deepcopy(_models[1]), examples)


@pytest.fixture
def linear(examples) -> Subject:
    """Softmax regression on the pixels: its loss has derivatives in closed form."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1, generator=generator)
    return Subject("cccccccccccc@1", model.eval().requires_grad_(False), examples)


@pytest.fixture(scope="session")
def softmax_regression() -> Any:
    """Derivatives of its loss in closed form: reference/softmax_regression.py."""
    file = Path(__file__).parents[1] / "reference" / "softmax_regression.py"
    spec = importlib.util.spec_from_file_location("softmax_regression", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
