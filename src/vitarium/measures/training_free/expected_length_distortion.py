"""Expected length distortion: how much longer a network makes a curve in the space of images."""

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.architectures.features import features
from vitarium.core.seeds import derive
from vitarium.measures.base import Config, EvalModel, NotApplicable, Values, measure
from vitarium.measures.training_free._features import without_norms


class LengthDistortion(Config):
    """Circles in random planes, and what is left out of the network."""

    curves: PositiveInt = 5
    """Random circles, over which is averaged."""
    points: PositiveInt = 10
    """Points of each circle at which the output's speed is measured."""
    radius: PositiveFloat = 1.0
    """Radius of the circles around the zero image (a normalized image's mean)."""
    without_norms: bool = True
    """Replace all layer, RMS and group norms by the identity, as published, since they would undo
    most of what the layers stretch; false: only that after the last block."""
    seed: NonNegativeInt = 0
    """Random seed of the planes."""


@measure(
    "expected_length_distortion",
    unit="ratio",
    title="length distortion",
    quick=False,
    paper="Chen et al. 2022, As-ViT, arXiv 2202.11921",
    tiny={"curves": 2, "points": 3},
)
def expected_length_distortion(config: LengthDistortion, subject: EvalModel) -> Values:
    """Expected length distortion: length of the features along a circle, relative to the circle's.

    x(t) = radius * U (cos t, sin t) with U two orthonormal directions of the pixels; the mean over
    t and over circles of |d features / dt| / radius, in float64. Of untrained models (epoch 0) a
    higher one goes with higher accuracy; it grows with the scale of the weights, so compare models
    of one initialization. Parts: "" is the mean, "standard_error" that of the mean over circles.

    Raises NotApplicable where torch cannot differentiate a module forward, or numbers overflow.
    """
    model = without_norms(subject.model, last_alone=not config.without_norms).double()
    noise = torch.Generator().manual_seed(derive(config.seed, "expected_length_distortion"))
    shape = subject.examples.input_size
    means = torch.stack([_distortion(model, shape, config, noise) for _ in range(config.curves)])
    if not bool(means.isfinite().all()):
        raise NotApplicable(f"{subject.name}: its features overflow along the curve")
    values = {"": means.mean().item()}
    if config.curves > 1:
        values["standard_error"] = (means.std() / config.curves**0.5).item()
    return values


def _distortion(
    model: nn.Module, shape: tuple[int, ...], config: LengthDistortion, noise: torch.Generator
) -> Tensor:
    """Of one circle, scalar; shape: channels, height and width of an image."""
    size = shape[0] * shape[1] * shape[2]
    drawn = torch.randn(size, 2, generator=noise, dtype=torch.float64)
    plane = torch.linalg.qr(drawn)[0].to(next(model.parameters()).device)
    angles = torch.arange(config.points, dtype=torch.float64) * (2 * torch.pi / config.points)
    cos_sin = torch.stack([angles.cos(), angles.sin()], 1).to(plane)
    velocity = torch.stack([-angles.sin(), angles.cos()], 1).to(plane)
    images = (config.radius * cos_sin @ plane.T).unflatten(1, shape)
    tangents = (config.radius * velocity @ plane.T).unflatten(1, shape)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        try:
            speed: Tensor = jvp(lambda x: features(model, x), (images,), (tangents,))[1]
        except (NotImplementedError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise NotApplicable(
                f"{type(model).__name__} has no forward derivative: {reason}"
            ) from None
    return speed.flatten(1).norm(dim=1).mean() / config.radius
