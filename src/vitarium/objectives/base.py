"""What an objective returns."""

from torch import Tensor


class Loss:
    """The value to minimise (a scalar with a graph) and what is logged beside it (scalars).

    `Loss(cross_entropy, accuracy=top1)`; the loss itself is logged as "loss".
    """

    def __init__(self, value: Tensor, **metrics: Tensor) -> None:
        self.value = value
        self.metrics = {"loss": value.detach(), **{k: v.detach() for k, v in metrics.items()}}
