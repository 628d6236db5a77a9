"""Bezier curves between two models' parameters, and barriers on them."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.batch_statistics import (
    has_statistics,
    is_statistic,
    recount,
    statistics_of,
)
from vitarium.evaluation.compatible import running_mismatch
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.losses import Losses, Parameters, losses, parameters
from vitarium.evaluation.scoring import load


def _odd(points: int) -> int:
    if points % 2 == 0:
        raise ValueError(f"{points} is even: without a point halfway")
    return points


PathPoints = Annotated[int, Field(ge=3), AfterValidator(_odd)]
"""How many models on a path are evaluated, both ends and the one halfway among them."""


class OnPath(Config):
    """Settings of measures of a path between two models."""

    points: PathPoints = 25
    """Number of models on the path that are evaluated, both ends included; an odd number, so that
    the midpoint is one."""
    num_images: PositiveInt = 1024
    """Largest number of images of the split to use."""
    batch_size: PositiveInt = 256
    """Images per forward pass; affects memory and speed only."""

    @property
    def positions(self) -> list[float]:
        """Of the points on the path: from 0 to 1, equally spaced."""
        return [index / (self.points - 1) for index in range(self.points)]


def bezier(controls: Sequence[Parameters], t: float) -> dict[str, Tensor]:
    """A point of a Bezier curve, by name in the parameters' shapes [*shape]; the ends at t = 0, 1.

    Exact at both ends, and where all control points are the same (de Casteljau's construction).
    """
    point = {}
    for name in controls[0]:
        tensors = [control[name] for control in controls]
        while len(tensors) > 1:
            tensors = [torch.lerp(left, right, t) for left, right in pairwise(tensors)]
        (point[name],) = tensors
    return point


def losses_along(
    subject: EvalModel,
    controls: Sequence[Parameters],
    positions: Sequence[float],
    config: OnPath,
    last: EvalModel | None = None,
) -> Losses:
    """Loss and error [positions] of the points of a Bezier curve, on the subject's examples.

    Statistics of batch normalizations are counted anew at every point, on training images; those
    of the ends are the models' own (`subject` at 0, `last` at 1).
    """
    examples = subject.examples.first(config.num_images)
    statistics = [_statistics(subject, controls, t, last) for t in positions]

    def points() -> Iterator[Parameters]:
        for t, counted in zip(positions, statistics, strict=True):
            yield {**bezier(controls, t), **counted}

    return losses(subject.model, points, examples, config.batch_size)


def _statistics(
    subject: EvalModel, controls: Sequence[Parameters], t: float, last: EvalModel | None
) -> Mapping[str, Tensor]:
    """Of the point at t, by name [channels]; none where there is no batch normalization."""
    end = {0.0: subject, 1.0: last}.get(t)
    if end or not has_statistics(subject.model):
        return statistics_of(end.model) if end else {}
    model = deepcopy(subject.model)
    load(model, bezier(controls, t))
    recount(model, subject.examples.of("train"))
    return statistics_of(model)


def barriers(positions: Sequence[float], path: Losses) -> Mapping[str, float]:
    """Rise of a path's losses [points] above the line between its ends' (Frankle et al.).

    Parts: "" (loss, nats) and "error" where they rise most, 0 where they do not; "midpoint/loss"
    and "midpoint/error" halfway, negative where the model there is better than the mean.
    """
    t = torch.tensor(positions, dtype=torch.float64)
    rises = [values - torch.lerp(values[0], values[-1], t) for values in (path.loss, path.error)]
    highest = [rise.max().item() for rise in rises]
    halfway = [rise[len(positions) // 2].item() for rise in rises]
    parts = ("", "error", "midpoint/loss", "midpoint/error")
    return dict(zip(parts, highest + halfway, strict=True))


def check_path(first: EvalModel, second: EvalModel) -> None:
    """Raises NotApplicable where nothing lies between two models, or not for both on one data."""
    pair = f"{first.name} and {second.name}"
    for subject in (first, second):
        subject.check_classifier()
    data = [subject.examples.dataset.name for subject in (first, second)]
    if data[0] != data[1]:
        raise NotApplicable(f"{pair} are of different data: '{data[0]}' and '{data[1]}'")
    sizes = [subject.examples.input_size for subject in (first, second)]
    if sizes[0] != sizes[1]:
        raise NotApplicable(f"{pair} take images of different sizes: {sizes[0]} and {sizes[1]}")
    if first.examples.preprocessing != second.examples.preprocessing:
        raise NotApplicable(f"{pair} take images that are prepared in different ways")
    if first.examples.outputs != second.examples.outputs:
        raise NotApplicable(f"{pair} have their classes in different orders")
    _check_tensors(pair, parameters(first.model), parameters(second.model))
    if message := running_mismatch(first, second):
        raise NotApplicable(f"{message}; nothing lies between them")
    buffers = [dict(subject.model.named_buffers()) for subject in (first, second)]
    _check_tensors(pair, *buffers)
    for name, buffer in buffers[0].items():
        if not is_statistic(name) and not torch.equal(buffer, buffers[1][name]):
            raise NotApplicable(
                f"{pair} differ in '{name}', which is a buffer and no parameter: what it would be "
                "between them is not known"
            )


def _check_tensors(pair: str, first: Parameters, second: Parameters) -> None:
    for name in [*first, *second]:
        sides = [tensors.get(name) for tensors in (first, second)]
        shapes = ["missing" if tensor is None else f"{list(tensor.shape)}" for tensor in sides]
        if shapes[0] != shapes[1]:
            raise NotApplicable(f"{pair} differ in '{name}': {shapes[0]} and {shapes[1]}")
