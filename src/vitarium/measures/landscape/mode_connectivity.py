"""Mode connectivity: rise of the loss on a trained curve between two models."""

from itertools import islice
from math import comb

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from vitarium.core.seeds import derive
from vitarium.evaluation.batch_statistics import counting
from vitarium.evaluation.losses import Parameters, gradients, mean_loss, parameters
from vitarium.measures.base import Config, EvalModel, Values, measure
from vitarium.measures.landscape._paths import OnPath, barriers, bezier, check_path, losses_along


class CurveTraining(Config):
    """Base of the settings: the curve, and how it is trained."""

    bends: PositiveInt = 1
    """Trained control points of the Bezier curve, between its two ends."""
    steps: PositiveInt = 500
    """Training steps, each at one random point of the curve."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of Adam: it rises over the first tenth of the steps, then falls linearly
    toward zero."""
    seed: NonNegativeInt = 0
    """Random seed of the order of the images and of the points on the curve."""


class ModeConnectivity(CurveTraining, OnPath):
    train_images: PositiveInt = 4096
    """Largest number of training images on which the curve is trained, without augmentation."""
    train_batch_size: PositiveInt = 64
    """Images per training step."""


@measure(
    "mode_connectivity",
    unit="nats",
    part_units={"error": "fraction"},
    quick=False,
    paper="Garipov et al. 2018, arXiv 1802.10026",
    tiny={"steps": 2, "points": 3},
)
def mode_connectivity(config: ModeConnectivity, first: EvalModel, second: EvalModel) -> Values:
    """Mode connectivity: largest rise of the loss on a low-loss curve trained between two models.

    It is trained on the training split and measured like `barrier`, with the same parts.
    """
    # The ends are trained in the same order, whichever model comes first.
    start, end = sorted((first, second), key=lambda subject: subject.name)
    path = losses_along(start, curve(start, end, config), config.positions, config, last=end)
    return barriers(config.positions, path)


def curve(
    first: EvalModel, second: EvalModel, config: ModeConnectivity | None = None
) -> list[Parameters]:
    """Control points of a trained Bezier curve: the first model, the bends, the last model.

    It minimizes the mean loss over t ~ U(0, 1) (Eq. 2 of the paper), from the straight line. Batch
    normalizations take the statistics of each batch meanwhile.
    """
    config = config or ModeConnectivity()
    check_path(first, second)
    ends = [parameters(subject.model) for subject in (first, second)]
    degree = config.bends + 1
    bends = [bezier(ends, index / degree) for index in range(1, degree)]
    controls: list[Parameters] = [ends[0], *bends, ends[1]]
    trained = [tensor for bend in bends for tensor in bend.values()]
    optimizer = torch.optim.Adam(trained, config.lr)
    generator = torch.Generator().manual_seed(derive(config.seed, "mode_connectivity", "places"))
    training = first.examples.of("train").first(config.train_images)
    batches = training.endless(config.train_batch_size, config.seed, "mode_connectivity")
    model = counting(first.model)
    for step, batch in enumerate(islice(batches, config.steps)):
        t = torch.rand((), dtype=torch.float64, generator=generator).item()
        point = {name: tensor.requires_grad_() for name, tensor in bezier(controls, t).items()}
        with torch.enable_grad():
            value = mean_loss(model, point, batch.images, batch.labels)
            slopes = gradients(value, list(point.values()))
        # A point is a weighted sum of control points: the chain rule is a factor for each bend.
        for index, bend in enumerate(bends, start=1):
            factor = comb(degree, index) * t**index * (1 - t) ** (degree - index)
            for tensor, slope in zip(bend.values(), slopes, strict=True):
                tensor.grad = slope * factor
        rise, fall = 10 * (step + 1) / config.steps, 1 - step / config.steps
        optimizer.param_groups[0]["lr"] = config.lr * min(rise, fall)
        optimizer.step()
    optimizer.zero_grad()  # the slopes would be kept as long as the curve
    return controls
