"""The contract of schedules."""

import math
from typing import Any

from vitarium.testing._rules import require, tiny_section

_EPOCHS = (1, 5)
_STEPS_PER_EPOCH = (1, 7)


def check_schedule(name: str, **settings: Any) -> None:
    """Test that a schedule keeps to its contract (`training/base.py`).

    A finite factor from 0 to 1 at every step of short and long runs, the same whenever the step is
    the same, and above 0 at some step.

    Args:
        settings: used in place of the plug-in's `tiny` ones.

    Raises AssertionError that names the rule.
    """

    def rule(holds: bool, text: str) -> None:
        require(holds, "schedule", name, text)

    section = tiny_section("schedule", name, settings)
    for per_epoch in _STEPS_PER_EPOCH:
        for epochs in _EPOCHS:
            steps = epochs * per_epoch
            factors = [section(step, steps, per_epoch) for step in range(steps)]
            for step, factor in enumerate(factors):
                rule(
                    math.isfinite(factor) and -1e-9 <= factor <= 1 + 1e-9,
                    f"its factor is {factor} at step {step} of {steps}, not from 0 to 1",
                )
            rule(max(factors) > 0, f"its factor is 0 at each of {steps} steps")
            backwards = [section(step, steps, per_epoch) for step in reversed(range(steps))]
            rule(
                factors == backwards[::-1],
                "its factor depends on more than the step: on which steps were asked before",
            )
