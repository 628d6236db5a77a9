"""Which models come next: parents before children, alike ones in stacks, whatever runs them."""

from collections.abc import Callable, Iterable
from itertools import islice

from vitarium.blueprint import ModelSpec, Plan
from vitarium.engine.tuning.calibration import TrainMode
from vitarium.training import stack_key

ModeOf = Callable[[ModelSpec], TrainMode]
"""How to train a model, and how many at most as one computation."""


class Queue:
    """The models of a plan that are still to be grown.

    Args:
        done: ids of those that are in the zoo already, with weights to start from.
        without_checkpoint: ids of those that are in the zoo but have no last epoch (diverged).
    """

    def __init__(
        self, plan: Plan, done: Iterable[str], without_checkpoint: Iterable[str] = ()
    ) -> None:
        self._done = set(done)
        closed = {*self._done, *without_checkpoint}
        self._waiting = [model for model in plan.models if model.id not in closed]
        self._keys: dict[str, str | None] = {}
        self.max_stack: int | None = None
        """Lowered when memory runs out."""

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[ModelSpec]:
        """All that have not been taken; once nothing runs, those that can no longer start."""
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

    def next_stack(self, mode_of: ModeOf) -> tuple[list[ModelSpec], TrainMode]:
        """Take that model and those to train with it, none while there are none; and how."""
        first = self.next()
        if first is None:
            return [], TrainMode()
        mode, stack = mode_of(first), [first]
        size = min(mode.stacked, self.max_stack or mode.stacked)
        if size > 1 and (key := self._key(first)) is not None:
            alike = (m for m in self._waiting if self._ready(m) and self._key(m) == key)
            stack += islice(alike, size - 1)
            for model in stack[1:]:
                self._waiting.remove(model)
        return stack, mode

    def finished(self, model: ModelSpec) -> None:
        """Its children may start."""
        self._done.add(model.id)

    def put_back(self, model: ModelSpec) -> None:
        """It comes next."""
        self._waiting.insert(0, model)

    def _ready(self, model: ModelSpec) -> bool:
        return model.parent is None or model.parent in self._done

    def _key(self, model: ModelSpec) -> str | None:
        if model.id not in self._keys:
            self._keys[model.id] = stack_key(model)
        return self._keys[model.id]
