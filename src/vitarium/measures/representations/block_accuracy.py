"""Accuracy of classifiers of each block's features: k nearest neighbors, or a linear probe."""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.evaluation.data import EvalData
from vitarium.evaluation.features import Tap, blocks_of, evaluating, tapped
from vitarium.measures.base import Config, EvalModel, NotApplicable, Values, measure
from vitarium.objectives._feature_scores import LinearProbe
from vitarium.objectives._nearest_neighbors import knn_classify

_QUERIES = 1024
"""Images whose neighbors are looked for at a time."""


class BlockAccuracy(Config):
    classifier: Literal["linear", "knn"] = "linear"
    """Logistic regression on standardized features (linear), or a vote of nearest neighbors by
    cosine similarity (knn)."""
    tokens: Literal["mean", "class"] = "mean"
    """Features of a block: the mean of its patch tokens, or its class token."""
    neighbors: PositiveInt = 20
    """Neighbors that vote."""
    train_images: PositiveInt = 10_000
    """Largest number of training images to which the classifier is fitted; of each class in
    proportion."""
    num_images: PositiveInt = 10_000
    """Largest number of images of the split to classify."""


@measure(
    "block_accuracy",
    unit="fraction",
    title="accuracy by block",
    quick=False,
    held_out=True,
    paper="Alain & Bengio 2017, arXiv 1610.01644",
    tiny={"train_images": 48},
)
def block_accuracy(config: BlockAccuracy, subject: EvalModel) -> Values:
    """Accuracy of a linear probe, or of nearest neighbors, on each block's pooled features.

    Of models of any objective, with a head or without. Parts are blocks ("blocks.3"); the whole is
    the last block's. Features are a block's output, without norm. Classifiers are fitted to
    training images of the data on which it is measured, which are not augmented.
    """
    if subject.examples.split == "train":
        raise NotApplicable("classifiers are fitted to the training images: choose another split")
    training = subject.examples.of("train").first(config.train_images)
    bank = block_features(subject, training, config.tokens)
    queries = block_features(subject, subject.examples.first(config.num_images), config.tokens)
    labels, truth = training.labels, subject.examples.first(config.num_images).labels
    if not len(labels) or not len(truth):
        raise NotApplicable("there are no images to classify")
    accuracies = {
        name: share_correct(config, bank[name], labels, queries[name], truth) for name in bank
    }
    return {"": list(accuracies.values())[-1], **accuracies}


def block_features(subject: EvalModel, images: EvalData, tokens: str) -> dict[str, Tensor]:
    """Of each block by name: float32 [n, d] on the CPU, of all images in order.

    Raises NotApplicable where there are no blocks or no such tokens, or features are not finite.
    """
    model = subject.model
    taps = [Tap(name, module, model) for name, module in blocks_of(model, subject.name).items()]
    batches: dict[str, list[Tensor]] = {tap.name: [] for tap in taps}

    def see(tap: Tap, output: object) -> None:
        batches[tap.name].append(tap.features(output, tokens).float().cpu())

    with tapped(taps, see), torch.inference_mode(), evaluating(model):
        for batch in images.batches():
            model(batch.images)
    features = {name: torch.cat(parts) for name, parts in batches.items() if parts}
    for name, values in features.items():
        if not torch.isfinite(values).all():
            raise NotApplicable(f"{subject.name}: {name} has features that are not finite")
        if len(values) != len(images):
            raise NotApplicable(f"{subject.name}: {name} does not run once in a forward pass")
    return features


def share_correct(
    config: BlockAccuracy, bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor
) -> float:
    """Of queries [m, d] with labels [m], classified by bank [n, d] with bank_labels [n]."""
    if config.classifier == "linear":
        classes = LinearProbe(bank, bank_labels)(queries)
    else:
        parts = [
            knn_classify(bank, bank_labels, part, k=config.neighbors)
            for part in queries.split(_QUERIES)
        ]
        classes = torch.cat(parts)
    return (classes == labels).double().mean().item()
