"""Sharpness: rise of the loss after SAM's step."""

from collections.abc import Mapping

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from vitarium.evaluation.losses import Parameters, gradient, losses, parameters
from vitarium.measures.base import EvalModel, measure
from vitarium.measures.landscape.gradient_norm import GradientNorm


class Sharpness(GradientNorm):
    """The step; the gradient and both losses are of the same images."""

    rho: PositiveFloat = 0.05
    """Length of the step; 0.5 is usual with `adaptive`."""
    adaptive: bool = False
    """Take larger steps in larger parameters, so that rescaling a layer changes nothing (ASAM)."""
    eta: NonNegativeFloat = 0.01
    """Number added to the parameters' absolute values with `adaptive`, so that parameters of 0
    move, too."""


@measure(
    "sharpness",
    unit="nats",
    quick=False,
    paper="Foret et al. 2021, arXiv 2010.01412; Kwon et al. 2021, arXiv 2102.11600",
)
def sharpness(config: Sharpness, subject: EvalModel) -> float:
    """Sharpness: rise of the mean loss after SAM's ascent step.

    L(w + e) - L(w) with e = rho g / |g| for the gradient g over all images (Foret et al., Eq. 2);
    adaptive: e = rho T^2 g / |T g| with T = |w| + eta (Kwon et al.). 0 where g is 0.
    """
    subject.check_classifier()
    examples = subject.examples.first(config.num_images)
    before, slopes = gradient(subject.model, examples, config.batch_size)
    moved = ascended(parameters(subject.model), slopes, config)
    after = losses(subject.model, lambda: [moved], examples, config.batch_size).loss.item()
    return after - before


def ascended(
    weights: Parameters, slopes: Mapping[str, Tensor], config: Sharpness
) -> dict[str, Tensor]:
    """Parameters after SAM's, or ASAM's, step; slopes: the gradient, both by name [*shape]."""
    scales = {
        name: tensor.abs() + config.eta if config.adaptive else torch.ones_like(tensor)
        for name, tensor in weights.items()
    }
    scaled = [scales[name] * slope for name, slope in slopes.items()]
    norms = [torch.linalg.vector_norm(slope, dtype=torch.float64) for slope in scaled]
    norm = torch.linalg.vector_norm(torch.stack(norms)).item()
    step = config.rho / norm if norm else 0.0
    return {n: w + step * scales[n].square() * slopes[n] for n, w in weights.items()}
