"""Paths between two models through the space of their parameters, and barriers on them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.losses import Losses, Parameters, parameters


class OnPath(Config):
    """Settings of measures of a path between two models."""

    points: int = Field(default=25, ge=3)
    """Models on the path that are evaluated, both ends among them; odd, for the one halfway."""
    images: PositiveInt = 1024
    """At most so many images of the split."""
    batch_size: PositiveInt = 256
    """Images at a time; it changes nothing but memory and speed."""

    @field_validator("points")
    @classmethod
    def _has_a_middle(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(f"{points} is even: without a point halfway")
        return points

    @property
    def places(self) -> list[float]:
        """Where on the path the points are: from 0 to 1, equally far from each other."""
        return [place / (self.points - 1) for place in range(self.points)]


def bezier(controls: Sequence[Parameters], t: float) -> dict[str, Tensor]:
    """A point of a Bezier curve: at t = 0 the first control point, at t = 1 the last.

    Of two control points it is the straight line between them. It is exact at both ends, and
    where all control points are the same (de Casteljau's construction).
    """
    return {name: _bezier([control[name] for control in controls], t) for name in controls[0]}


def along(
    controls: Sequence[Parameters], places: Sequence[float]
) -> Callable[[], Iterator[Parameters]]:
    """The points of a Bezier curve at these places, as `losses` takes them."""
    return lambda: (bezier(controls, t) for t in places)


def barriers(places: Sequence[float], found: Losses) -> Mapping[str, float]:
    """How far a path rises above the straight line between what its ends lose (Frankle et al.).

    Parts: "" (loss, nats) and "error" where they rise most, 0 where they do not; "midpoint/loss"
    and "midpoint/error" halfway, negative where the model there is better than the mean.
    """
    t = torch.tensor(places, dtype=torch.float64)
    middle = len(places) // 2
    rises = [values - torch.lerp(values[0], values[-1], t) for values in (found.loss, found.error)]
    loss, error = (rise.max().item() for rise in rises)
    return {
        "": loss,
        "error": error,
        "midpoint/loss": rises[0][middle].item(),
        "midpoint/error": rises[1][middle].item(),
    }


def check_path(one: EvalModel, other: EvalModel) -> None:
    """Raises NotApplicable where nothing lies between two models, or not for both on one data."""
    pair = f"{one.name} and {other.name}"
    for subject in (one, other):
        subject.check_classifier()
    data = [subject.examples.dataset.name for subject in (one, other)]
    if data[0] != data[1]:
        raise NotApplicable(f"{pair} are of different data: '{data[0]}' and '{data[1]}'")
    sizes = [subject.examples.input_size for subject in (one, other)]
    if sizes[0] != sizes[1]:
        raise NotApplicable(f"{pair} take images of different sizes: {sizes[0]} and {sizes[1]}")
    _check_tensors(pair, parameters(one.model), parameters(other.model))
    buffers = [dict(subject.model.named_buffers()) for subject in (one, other)]
    _check_tensors(pair, *buffers)
    for name, buffer in buffers[0].items():
        if not torch.equal(buffer, buffers[1][name]):
            raise NotApplicable(
                f"{pair} differ in '{name}', which is no parameter: what it is between them, such "
                "as the statistics of a batch normalisation, would have to be computed from data"
            )


def _check_tensors(pair: str, one: Parameters, other: Parameters) -> None:
    for name in [*one, *other]:
        shapes = [
            f"{list(tensors[name].shape)}" if name in tensors else "missing"
            for tensors in (one, other)
        ]
        if shapes[0] != shapes[1]:
            raise NotApplicable(f"{pair} differ in '{name}': {shapes[0]} and {shapes[1]}")


def _bezier(controls: Sequence[Tensor], t: float) -> Tensor:
    while len(controls) > 1:
        controls = [torch.lerp(left, right, t) for left, right in pairwise(controls)]
    return controls[0]
