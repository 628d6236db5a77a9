"""Loss along a path between two models; a barrier is its height."""

from typing import Literal

from pydantic import Field

from vitarium.evaluation.losses import Losses
from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.landscape._paths import losses_along
from vitarium.measures.landscape.barrier import path_losses
from vitarium.measures.landscape.mode_connectivity import ModeConnectivity, curve


class LossPath(ModeConnectivity):
    points: int = Field(default=21, ge=3)
    """Number of models on the path that are evaluated, both ends included; an odd number, so that
    the midpoint is one."""
    curve: Literal["line", "bezier"] = "line"
    """Shape of the path: a straight line, or a Bezier curve trained as by `mode_connectivity`, with
    its settings."""


@measure(
    "loss_path",
    unit="nats",
    part_units={"error": "fraction"},
    title="loss on a path",
    symmetric="mirrored",
    quick=False,
    paper="Garipov et al. 2018, arXiv 1802.10026",
    tiny={"steps": 2, "points": 3},
)
def loss_path(config: LossPath, first: EvalModel, second: EvalModel) -> Values:
    """Loss and error of the models along a path between two models.

    Parts: "loss/0.00" (nats) and "error/0.00" (a fraction) at the first model, to "loss/1.00" and
    "error/1.00" at the second. Raises NotApplicable: see `check_path`.
    """
    path = losses_on_path(config, first, second)
    digits = 2 if 100 % (config.points - 1) == 0 else 4
    labels = [f"{position:.{digits}f}" for position in config.positions]
    return {
        f"{what}/{position}": value
        for what, values in (("loss", path.loss), ("error", path.error))
        for position, value in zip(labels, values.tolist(), strict=True)
    }


def losses_on_path(config: LossPath, first: EvalModel, second: EvalModel) -> Losses:
    """Loss and error [points] at the positions `config.positions`, see `Losses`."""
    if config.curve == "line":
        return path_losses(first, second, config.positions, config)
    # As in `mode_connectivity`: both train the same curve, whichever model comes first.
    start, end = sorted((first, second), key=lambda subject: subject.name)
    path = losses_along(start, curve(start, end, config), config.positions, config, last=end)
    return path if start is first else Losses(path.loss.flip(0), path.error.flip(0))
