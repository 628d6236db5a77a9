"""SimCLR: InfoNCE between two augmented views of each image, without labels."""

from collections.abc import Iterator, Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import features
from vitarium.core.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives._nearest_neighbors import knn_classify
from vitarium.objectives.base import BatchesOfSplit, Loss, objective


class Simclr(Config):
    """InfoNCE between two augmented views.

    The projection is the model's head: `head: mlp` is SimCLR's, `head: linear` a linear one,
    `head: none` compares the features. A stage that starts from the model has its own head.
    """

    temperature: PositiveFloat = 0.1
    """Temperature of the softmax: cosine similarities are divided by it."""
    out_dim: PositiveInt = 128
    """Width of the projection, which is the model's output."""
    neighbors: PositiveInt = 20
    """Neighbors that vote in the k-NN classifier that scores the features."""
    bank: PositiveInt = 10_000
    """Largest number of training images among which the k-NN classifier looks for neighbors."""


def evaluate(
    config: Simclr, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Accuracy of k-NN on the features of each split, with training images as neighbors."""
    bank, bank_labels = _features(model, batches("train", config.bank))
    scores = {}
    for split in splits:
        queries, labels = _features(model, batches(split, None))
        parts = queries.split(1024)
        classes = [knn_classify(bank, bank_labels, part, k=config.neighbors) for part in parts]
        predictions = torch.cat(classes)
        scores[split] = {"knn_accuracy": (predictions == labels).double().mean().item()}
    return scores


@objective(
    "simclr",
    views=2,
    needs_head=False,
    per_image=False,
    outputs=lambda config, num_classes: config.out_dim,
    evaluate=evaluate,
    scores=("knn_accuracy",),
    paper="Chen et al. 2020, arXiv 2002.05709",
)
def simclr(config: Simclr, model: nn.Module, batch: Batch) -> Loss:
    """SimCLR: contrastive learning (InfoNCE loss) between two augmented views of each image.

    Outputs [2 * batch, out_dim]: all first views, then all second ones.
    """
    outputs = model(batch.images)
    # Autocast would round the similarities to 8 bits, which the temperature then magnifies.
    with torch.autocast(outputs.device.type, enabled=False):
        unit = F.normalize(outputs.float(), dim=1)
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similarity = (unit @ unit.T).masked_fill(itself, float("-inf"))
    images = len(similarity) // 2
    partner = torch.arange(2 * images, device=similarity.device).roll(images)
    loss = F.cross_entropy(similarity / config.temperature, partner)
    return Loss(loss, contrastive_accuracy=(similarity.argmax(1) == partner).float().mean())


def _features(model: nn.Module, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
    """Of all images: features [n, num_features] and labels [n]."""
    by_batch = [(features(model, batch.images).float(), batch.labels) for batch in batches]
    return torch.cat([f for f, _ in by_batch]), torch.cat([labels for _, labels in by_batch])
