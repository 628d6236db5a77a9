"""Which of a model's kept epochs are averaged."""

import math
from collections.abc import Sequence

from vitarium.core.errors import InvalidInput


def trained(kept: Sequence[int]) -> list[int]:
    """The kept epochs in order, without the state before training (epoch 0)."""
    return sorted(epoch for epoch in kept if epoch > 0)


def latest(kept: Sequence[int], count: int) -> list[int]:
    """The last so many kept epochs of training. Raises InvalidInput where there are fewer."""
    found = trained(kept)
    if len(found) < count:
        told = ", ".join(map(str, found)) or "none"
        raise InvalidInput(
            f"the last {count} epochs are asked for, and {len(found)} are kept ({told}); "
            "ask for fewer"
        )
    return found[-count:]


def every(kept: Sequence[int], start: float, step: int) -> list[int]:
    """Every `step`-th kept epoch, the first at that share of training or right after it."""
    found = trained(kept)
    first = math.ceil(round(start * found[-1], 9)) if found else 0
    return [epoch for epoch in found if epoch >= first][::step]
