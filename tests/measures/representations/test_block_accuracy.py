"""Accuracy by block: against the model's own features and scikit-learn's classifiers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose


def measured(subject, **settings):
    return choose("measure", "block_accuracy", train_images=200, num_images=100, **settings)(
        subject
    )


def features(subject, images, tokens):
    """Of each block, by running blocks one after the other."""
    model, by_block = subject.model, []
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images))
        for block in model.blocks:
            x = block(x)
            by_block.append((x[:, 0] if tokens == "class" else x[:, 1:].mean(1)).numpy())
    return by_block


def images_of(examples, count):
    (batch,) = examples.first(count).batches(count)
    return batch.images, batch.labels.numpy()


def votes(bank, labels, queries):
    """20 nearest by cosine similarity s, each with exp(s / 0.07) votes (Wu et al. 2018)."""
    neighbors = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    return neighbors.fit(bank, labels).predict(queries)


def probe(bank, labels, queries):
    scaler = StandardScaler().fit(bank)
    regression = LogisticRegression(max_iter=2000).fit(scaler.transform(bank), labels)
    return regression.predict(scaler.transform(queries))


@pytest.mark.parametrize("tokens", ["mean", "class"])
@pytest.mark.parametrize(("classifier", "reference"), [("knn", votes), ("linear", probe)])
def test_it_is_the_accuracy_of_a_classifier_of_each_blocks_features(
    subject, tokens, classifier, reference
):
    bank, bank_labels = images_of(subject.examples.of("train"), 200)
    queries, labels = images_of(subject.examples, 100)
    expected = [
        (reference(of_bank, bank_labels, of_queries) == labels).mean()
        for of_bank, of_queries in zip(
            features(subject, bank, tokens), features(subject, queries, tokens), strict=True
        )
    ]
    values = measured(subject, classifier=classifier, tokens=tokens)
    assert list(values) == ["", "blocks.0", "blocks.1"]
    assert values[""] == values["blocks.1"]
    # a probe that stops earlier may decide otherwise about an image on the border
    assert list(values.values())[1:] == pytest.approx(expected, abs=0.011)
    assert min(expected) > 0.2  # ten classes


def test_a_block_that_gives_all_images_the_same_is_at_chance(subject):
    subject.model.blocks[1].register_forward_hook(lambda block, _, output: output * 0 + 1)
    values = measured(subject)
    assert values["blocks.0"] > 0.4
    assert values["blocks.1"] <= 0.15


def test_training_images_and_models_without_such_tokens_are_not_measured(subject):
    training = replace(subject, examples=subject.examples.of("train"))
    with pytest.raises(NotApplicable, match="choose another split"):
        measured(training)
    flat = replace(subject, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(NotApplicable, match="has no blocks"):
        measured(flat)
    subject.model.blocks[0].register_forward_hook(lambda block, _, output: output / 0)
    with pytest.raises(NotApplicable, match=r"blocks\.0 has features that are not finite"):
        measured(subject)
