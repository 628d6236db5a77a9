"""Which model comes next: parents before children, whatever runs them."""

from collections.abc import Callable, Iterable
from typing import Any

from vitarium.blueprint import ModelSpec, Plan


class Queue:
    """The models of a plan that are still to be grown.

    Args:
        plan: all models.
        done: ids of those that are in the zoo already, with weights to start from.
        without_checkpoint: ids of those that are in the zoo but have no last epoch (diverged).
    """

    def __init__(
        self, plan: Plan, done: Iterable[str], without_checkpoint: Iterable[str] = ()
    ) -> None:
        self._done = set(done)
        self._closed = {*self._done, *without_checkpoint}
        self._waiting = [model for model in plan.models if model.id not in self._closed]

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[ModelSpec]:
        """All that have not been taken."""
        return list(self._waiting)

    def can_start(self) -> bool:
        """Whether `next` gives a model."""
        return any(self._ready(model) for model in self._waiting)

    def next(self) -> ModelSpec | None:
        """Take the first model whose parent is done; None while there is none."""
        first = next(filter(self._ready, self._waiting), None)
        if first is not None:
            self._waiting.remove(first)
        return first

    def more_like(
        self, first: ModelSpec, key: Callable[[ModelSpec], Any], limit: int
    ) -> list[ModelSpec]:
        """Take up to `most` others that can start, too, and have the same key as the first."""
        models = [m for m in self._waiting if self._ready(m) and key(m) == key(first)][:limit]
        for model in models:
            self._waiting.remove(model)
        return models

    def finished(self, model: ModelSpec) -> None:
        """Its children may start."""
        self._done.add(model.id)

    def put_back(self, model: ModelSpec) -> None:
        """It comes next."""
        self._waiting.insert(0, model)

    def blocked(self) -> list[ModelSpec]:
        """Take the models that can no longer start, once nothing runs any more."""
        blocked, self._waiting = self._waiting, []
        return blocked

    def _ready(self, model: ModelSpec) -> bool:
        return model.parent is None or model.parent in self._done
