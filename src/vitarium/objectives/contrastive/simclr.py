"""SimCLR: InfoNCE between two augmented views of each image, without labels."""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import (
    FEATURE_SCORES,
    ScoredByFeatures,
    evaluate_features,
)
from vitarium.objectives._similarities import needs_two_images
from vitarium.objectives.base import Loss, objective


class Simclr(ScoredByFeatures):
    """InfoNCE between two augmented views.

    The projection is the model's head: `head: mlp` is SimCLR's, `head: linear` a linear one,
    `head: none` compares the features. A stage that starts from the model has its own head.
    """

    temperature: PositiveFloat = 0.1
    """Temperature of the softmax: cosine similarities are divided by it."""
    out_dim: PositiveInt = 128
    """Width of the projection, which is the model's output."""


@objective(
    "simclr",
    views=2,
    needs_head=False,
    per_image=False,
    misfits=needs_two_images,
    outputs=lambda config, num_classes: config.out_dim,
    evaluate=evaluate_features,
    scores=FEATURE_SCORES,
    paper="Chen et al. 2020, arXiv 2002.05709",
)
def simclr(config: Simclr, model: nn.Module, batch: Batch) -> Loss:
    """SimCLR: contrastive learning (InfoNCE loss) between two augmented views of each image.

    Outputs [2 * batch, out_dim]: all first views, then all second ones.
    """
    outputs = model(batch.images)
    # Autocast would round the similarities to 8 bits, which the temperature then magnifies.
    with without_autocast(outputs):
        unit = F.normalize(outputs.float(), dim=1)
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similarity = (unit @ unit.T).masked_fill(itself, float("-inf"))
    images = len(similarity) // 2
    partner = torch.arange(2 * images, device=similarity.device).roll(images)
    loss = F.cross_entropy(similarity / config.temperature, partner)
    return Loss(loss, contrastive_accuracy=(similarity.argmax(1) == partner).float().mean())
