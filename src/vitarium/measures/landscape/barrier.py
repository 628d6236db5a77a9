"""Loss barrier: rise of the loss on the straight line between two models."""

from collections.abc import Sequence

from vitarium.evaluation.losses import Losses, parameters
from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.landscape._paths import OnPath, barriers, check_path, losses_along


@measure(
    "barrier",
    unit="nats",
    part_units={"error": "fraction"},
    title="loss barrier",
    quick=False,
    paper="Frankle et al. 2020, arXiv 1912.05671; Entezari et al. 2022, arXiv 2110.06296",
    tiny={"points": 3},
)
def barrier(config: OnPath, first: EvalModel, second: EvalModel) -> Values:
    """Loss barrier: largest rise of the loss on the straight line between two models' weights.

    max over t of L((1 - t) A + t B) - (1 - t) L(A) - t L(B): 0 where the models are linearly
    connected. Parts: see `barriers`. Raises NotApplicable: see `check_path`.
    """
    return barriers(config.positions, path_losses(first, second, config.positions, config))


def path_losses(
    first: EvalModel, second: EvalModel, positions: Sequence[float], config: OnPath
) -> Losses:
    """Loss and error [positions] of (1 - t) A + t B, on the first model's examples."""
    check_path(first, second)
    ends = [parameters(subject.model) for subject in (first, second)]
    return losses_along(first, ends, positions, config, last=second)
