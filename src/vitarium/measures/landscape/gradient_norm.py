"""Norm of the gradient of the loss."""

import torch
from pydantic import PositiveInt

from vitarium.evaluation.losses import gradient
from vitarium.measures.base import Config, EvalModel, Values, measure


class GradientNorm(Config):
    num_images: PositiveInt = 1024
    """Largest number of images of the split to use."""
    batch_size: PositiveInt = 64
    """Images per forward pass; affects memory and speed only."""


@measure("gradient_norm", unit="norm", quick=False)
def gradient_norm(config: GradientNorm, subject: EvalModel) -> Values:
    """Euclidean norm of the gradient of the mean loss.

    Parts: "" is all parameters as one vector, and every parameter by its name.
    """
    subject.check_classifier()
    examples = subject.examples.first(config.num_images)
    _, slopes = gradient(subject.model, examples, config.batch_size)
    norm = torch.linalg.vector_norm
    norms = torch.stack([norm(slope, dtype=torch.float64) for slope in slopes.values()])
    return {"": norm(norms).item()} | dict(zip(slopes, norms.tolist(), strict=True))
