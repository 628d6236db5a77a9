"""InfoNCE against a brute force, k-NN against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from vitarium.architectures.features import features
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import FEATURE_SCORES
from vitarium.objectives._nearest_neighbors import knn_classify


class Fixed(nn.Module):
    def forward(self, images):
        return images


def info_nce(outputs: np.ndarray, temperature: float) -> float:
    """The definition, pair by pair: -log of the partner's share among all others."""
    count = len(outputs)
    unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    total = 0.0
    for i in range(count):
        partner = (i + count // 2) % count
        others = [math.exp(unit[i] @ unit[j] / temperature) for j in range(count) if j != i]
        total -= math.log(math.exp(unit[i] @ unit[partner] / temperature) / sum(others))
    return total / count


def loss(outputs, temperature=0.5):
    objective = section("objective", {"name": "simclr", "temperature": temperature})
    labels = torch.zeros(len(outputs) // 2, dtype=torch.long)
    return objective(Fixed(), Batch(outputs, labels, labels))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_info_nce_is_its_definition(temperature, pairs):
    outputs = torch.randn(2 * pairs, 5, generator=torch.Generator().manual_seed(pairs))
    expected = info_nce(outputs.double().numpy(), temperature)
    assert loss(outputs, temperature).value.item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_does_not_see_the_length_of_outputs_or_the_order_of_images():
    outputs = torch.randn(8, 5)
    order = torch.tensor([2, 0, 3, 1])
    permuted = outputs[torch.cat([order, order + 4])]
    assert loss(outputs * 7).value.item() == pytest.approx(loss(outputs).value.item(), rel=1e-5)
    assert loss(permuted).value.item() == pytest.approx(loss(outputs).value.item(), rel=1e-5)


def test_contrastive_accuracy_counts_partners_that_are_nearest():
    views = torch.eye(4)
    assert loss(torch.cat([views, views])).metrics["contrastive_accuracy"] == 1
    wrong = torch.cat([views, views.roll(1, 0)])
    assert loss(wrong).metrics["contrastive_accuracy"] == 0


def test_mixed_precision_does_not_reach_the_loss():
    outputs = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(outputs, 0.07).value
    assert torch.equal(mixed, loss(outputs, 0.07).value)


def test_the_width_of_the_output_is_a_factor():
    chosen = section("objective", {"name": "simclr", "out_dim": 1000})
    assert chosen.plugin.facts["outputs"](chosen.config, 10) == 1000


def test_knn_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 5
    bank = torch.randn(200, 6, generator=generator) + F_CENTRES[labels]
    queries = torch.randn(50, 6, generator=generator) + F_CENTRES[torch.arange(50) % 5]
    theirs = KNeighborsClassifier(
        n_neighbors=20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    ).fit(bank.numpy(), labels.numpy())
    found = knn_classify(bank, labels, queries, k=20)
    assert torch.equal(found, torch.from_numpy(theirs.predict(queries.numpy())))


F_CENTRES = 1.5 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_mixed_precision_does_not_reorder_neighbors():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(500, 16, generator=generator)
    queries = torch.randn(1000, 16, generator=generator)
    labels = torch.arange(500) % 7
    with torch.autocast("cpu", torch.bfloat16):
        mixed = knn_classify(bank, labels, queries, k=20)
    assert torch.equal(mixed, knn_classify(bank, labels, queries, k=20))


def test_more_neighbors_than_there_are_is_all_of_them():
    bank = torch.eye(3)
    assert torch.equal(knn_classify(bank, torch.arange(3), bank, k=20), torch.arange(3))


class Headless(nn.Module):
    """Its features are the images; its head must not be asked."""

    def forward_features(self, images):
        return images

    def forward_head(self, tokens, pre_logits=False):
        assert pre_logits
        return tokens


def test_scoring_votes_with_the_first_training_images_over_the_whole_split():
    images, labels = F_CENTRES.repeat(4, 1), torch.arange(20) % 5
    asked = []

    def score(split, limit):
        asked.append((split, limit))
        for part in torch.arange(20)[:limit].split(3):
            yield Batch(images[part], labels[part], labels[part])

    objective = section("objective", {"name": "simclr", "bank": 3, "neighbors": 1})
    evaluate = objective.plugin.facts["evaluate"]
    found = evaluate(objective.config, Headless(), score, ["val", "test"])["test"]
    assert asked == [("train", 3), ("val", None), ("test", None)]
    bank = nn.functional.normalize(images[:3], dim=1)
    nearest = (nn.functional.normalize(images, dim=1) @ bank.T).argmax(1)
    assert {*found} == {*FEATURE_SCORES}
    assert found["knn_accuracy"] == pytest.approx((nearest == labels).double().mean().item())
    assert found["knn_accuracy"] == pytest.approx(0.6)  # three of five classes are in the bank


@pytest.mark.parametrize("setting", ["temperature", "out_dim", "neighbors", "bank"])
def test_settings_have_to_be_positive(setting):
    with pytest.raises(InvalidConfig, match=f"{setting}: 0 is not greater than 0"):
        section("objective", {"name": "simclr", setting: 0})


def test_features_are_what_the_head_sees():
    from vitarium import create_model

    model = create_model(
        "vit", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2
    ).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        found = features(model, images)
        assert found.shape == (3, 24)
        assert torch.allclose(model.head(found), model(images), atol=1e-6)
