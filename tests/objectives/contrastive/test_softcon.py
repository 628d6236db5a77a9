"""SoftCon: similarities of labels, and each form of its loss by brute force in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitarium import create_model
from vitarium.core import seeds
from vitarium.core.registry import choose, section
from vitarium.data.batch import Batch
from vitarium.objectives._labels import label_similarity, share_a_label
from vitarium.objectives.contrastive._momentum import MomentumCompanions
from vitarium.objectives.contrastive.softcon import soft_contrast

MULTI_HOT = torch.tensor([[0, 1, 0, 0, 1.0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])


def config(**settings):
    return section("objective", {"name": "softcon", **settings}).config


def test_two_of_three_labels():
    assert label_similarity(MULTI_HOT, "cosine")[0, 1].item() == pytest.approx(0.5)
    assert label_similarity(MULTI_HOT, "jaccard")[0, 1].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("how", ["cosine", "jaccard"])
def test_similarities_are_those_of_sets(how):
    sets = [{*row.nonzero().flatten().tolist()} for row in MULTI_HOT]
    for i, first in enumerate(sets):
        for j, second in enumerate(sets):
            size = len(first | second) if how == "jaccard" else math.sqrt(len(first) * len(second))
            expected = 1.0 if i == j else len(first & second) / size if size else 0.0
            value = label_similarity(MULTI_HOT, how)[i, j].item()
            assert value == pytest.approx(expected, abs=1e-6), (i, j)


@pytest.mark.parametrize("how", ["cosine", "jaccard"])
def test_similarities_are_symmetric_and_do_not_depend_on_the_order_of_classes(how):
    similarity = label_similarity(MULTI_HOT, how)
    assert torch.equal(similarity, similarity.T)
    relabeled = label_similarity(MULTI_HOT[:, [3, 0, 4, 1, 2]], how)
    torch.testing.assert_close(relabeled, similarity)


@pytest.mark.parametrize("how", ["cosine", "jaccard"])
def test_single_labels_give_supcons_positives(how):
    targets = F.one_hot(torch.tensor([0, 2, 0, 1, 2])).float()
    assert torch.equal(label_similarity(targets, how), share_a_label(targets).float())


def brute_force(cosines: np.ndarray, similarity: np.ndarray, form: str) -> float:
    count, terms = len(cosines), []
    for i in range(count):
        normalizer = sum(math.exp(c / 0.2) for c in cosines[i])
        positives = [j for j in range(count) if similarity[i, j] >= 0.5]
        if form == "supcon":
            logs = [math.log(math.exp(cosines[i, p] / 0.2) / normalizer) for p in positives]
            weighted = [similarity[i, p] * log for p, log in zip(positives, logs, strict=True)]
            terms.append(-sum(weighted) / len(positives))
            continue
        for j in range(count):
            share = 1 / (1 + math.exp(-(10 * cosines[i, j] - 5)))
            target = similarity[i, j]
            if form == "mse":
                terms.append((share - target) ** 2)
            else:
                terms.append(-target * math.log(share) - (1 - target) * math.log(1 - share))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("form", ["bce", "mse", "supcon"])
@pytest.mark.parametrize("how", ["cosine", "jaccard"])
def test_each_form_is_its_definition(form, how):
    stream = torch.Generator().manual_seed(0)
    cosines = 2 * torch.rand(4, 4, dtype=torch.float64, generator=stream) - 1
    similarity = label_similarity(MULTI_HOT, how).double()
    value = soft_contrast(config(form=form), cosines, similarity).item()
    expected = brute_force(cosines.numpy(), similarity.numpy(), form)
    assert value == pytest.approx(expected, rel=1e-9)


def test_beside_the_labels_there_is_moco_v3s_loss():
    tiny = {"projector_hidden_dim": 16, "out_dim": 8}
    with seeds.seeded(0):
        model = create_model("vit", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2)
        choose("head", "none")(model, 3)
        companions = MomentumCompanions(config(**tiny), model)
    labels = torch.arange(6) % 3
    batch = Batch(torch.randn(12, 3, 16, 16), labels, F.one_hot(labels).float())

    def value(name, **settings):
        return section("objective", {"name": name, **tiny, **settings})(model, batch, companions)

    alone, with_half = (
        value("softcon", contrastive_weight=0),
        value("softcon", contrastive_weight=0.5),
    )
    expected = alone.value + 0.5 * value("moco_v3").value
    torch.testing.assert_close(with_half.value, expected)
    assert alone.metrics["soft_loss"] == alone.metrics["loss"]
