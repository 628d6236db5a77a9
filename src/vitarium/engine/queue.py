"""Which model comes next: parents before children, whatever runs them."""

from collections.abc import Iterable

from vitarium.blueprint import ModelSpec, Plan


class Queue:
    """The models of a plan that are still to be grown.

    Args:
        plan: all models.
        done: ids of those that are in the zoo already, with weights to start from.
        barren: ids of those that are in the zoo but have no last epoch (diverged).
    """

    def __init__(self, plan: Plan, done: Iterable[str], barren: Iterable[str] = ()) -> None:
        self._done = set(done)
        self._closed = {*self._done, *barren}
        self._waiting = [model for model in plan.models if model.id not in self._closed]

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> ModelSpec | None:
        """Take the first model whose parent is done; None while there is none."""
        for model in self._waiting:
            if model.parent is None or model.parent in self._done:
                self._waiting.remove(model)
                return model
        return None

    def finished(self, model: ModelSpec) -> None:
        """Its children may start."""
        self._done.add(model.id)

    def put_back(self, model: ModelSpec) -> None:
        """It comes next."""
        self._waiting.insert(0, model)

    def orphans(self) -> list[ModelSpec]:
        """Take the models that can no longer start, once nothing runs any more."""
        orphans, self._waiting = self._waiting, []
        return orphans
