"""Scoring of stacked models: their outputs for a batch are computed once, for all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vitarium.data.batch import Batch
from vitarium.training.train_state import TrainState


class SharedOutputs:
    """Outputs of all models for the batches of a split, computed when the first model is scored.

    outputs: images [batch, c, h, w] -> outputs of the k models, [k, batch, outputs].
    """

    def __init__(self, members: Sequence[TrainState], outputs: Callable[[Tensor], Tensor]) -> None:
        self.members, self.outputs = members, outputs
        self._by_batch: dict[Any, Tensor] = {}
        self._current: tuple[Any, Tensor | None] = (None, None)

    def score(self, member: TrainState) -> Any:
        """The member's `score`, remembering which batch is out."""

        def score(split: Any, limit: int | None = None) -> Iterator[Batch]:
            for number, batch in enumerate(member.batches.score(split, limit)):
                self._current = ((split, number), batch.images)
                yield batch

        return score

    @contextmanager
    def used_by(self, k: int) -> Iterator[None]:
        """Inside, the k-th model takes its outputs for such a batch from here."""
        model = self.members[k].model
        forward = model.forward

        def forward_shared(images: Tensor, *more: Any, **named: Any) -> Any:
            key, current = self._current
            if images is not current or more or named:
                return forward(images, *more, **named)
            if key not in self._by_batch:
                self._by_batch[key] = self.outputs(images)
            return self._by_batch[key][k]

        model.forward = forward_shared
        try:
            yield
        finally:
            model.forward = forward
