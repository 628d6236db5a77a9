"""A small ViT with what a masked objective brings beside it."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from reference.masked_autoencoders import MaskedAutoencoder
from vitarium.architectures.create import create_model
from vitarium.core import seeds
from vitarium.core.registry import section
from vitarium.data.batch import Batch

PATCH, HEADS = 4, 2
VIT = {"img_size": 16, "patch_size": PATCH, "in_chans": 3, "embed_dim": 16, "num_heads": HEADS}
DECODER = {"decoder_dim": 24, "decoder_depth": 2, "decoder_heads": 3}


@dataclass
class Setup:
    objective: Any
    model: Any
    companions: Any
    noise: torch.Tensor
    batch: Batch

    def loss(self, **changes):
        fields = {
            name: getattr(self.batch, name) for name in ("images", "labels", "targets", "masks")
        }
        batch = Batch(**(fields | changes))
        return self.objective(self.model, batch, self.companions)

    @property
    def reference(self):
        return MaskedAutoencoder(
            self.model, self.companions, PATCH, HEADS, DECODER["decoder_heads"]
        )

    @property
    def visible(self):
        return int((~self.batch.masks[0]).sum())

    def mean_over_images(self, loss_of):
        """Of `loss_of(reference, image, ids_shuffle, visible)`, in float64."""
        shuffled = self.noise.argsort(dim=1)
        losses = [
            loss_of(self.reference, image, ids, self.visible)
            for image, ids in zip(self.batch.images, shuffled, strict=True)
        ]
        return torch.stack(losses).mean().item()


@pytest.fixture
def setup():
    def build(name, architecture=None, **settings):
        objective = section("objective", {"name": name, **DECODER, **settings})
        facts, config = objective.facts, objective.config
        with seeds.seeded(3):
            model = create_model(
                "vit", num_classes=0, **VIT, **{"depth": 3, **(architecture or {})}
            )
            facts["prepare"](config, model, True)
            companions = facts["companions"](config, model, 10)
            for parameter in [*model.parameters(), *companions.parameters()]:
                if parameter.ndim == 1:  # biases and norms that are not what they start as
                    parameter.data += 0.1 * torch.randn_like(parameter)
            images, masks = torch.randn(3, 3, 16, 16), facts["masks"](config, model)
            noise = torch.rand(3, masks.numbers, dtype=torch.float64)
        labels = torch.zeros(3, dtype=torch.long)
        batch = Batch(images, labels, labels, masks=masks.masks(noise))
        return Setup(objective, model, companions, noise, batch)

    return build
