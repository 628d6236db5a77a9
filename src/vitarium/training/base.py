"""The contracts of optimizers and schedules."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch.optim import Optimizer

from vitarium.core.registry import contract, register

MakeOptimizer = TypeVar("MakeOptimizer", bound=Callable[[Any, Iterable[Any]], Optimizer])
Schedule = TypeVar("Schedule", bound=Callable[[Any, int, int, int], float])

RATE = "rate"
"""Key of a group of parameters: its share of the learning rate."""


@runtime_checkable
class PerturbsWeights(Protocol):
    """An optimizer whose steps take gradients of weights nearby: a second pass of each batch."""

    def perturbed(self) -> AbstractContextManager[None]:
        """Inside, weights are moved as their gradients say; then they are as before, bit by bit."""


@contract
def optimizer(
    name: str, *, elementwise: bool = False, paper: str = "", tiny: Mapping[str, Any] | None = None
) -> Callable[[MakeOptimizer], MakeOptimizer]:
    """Register an optimizer: a function `(config, parameters) -> torch.optim.Optimizer`.

    Parameters are tensors, or groups: mappings with `params`, maybe a `weight_decay`, and a `rate`
    that stays in the group. All that it needs to go on is in its state_dict, as tensors or numbers:
    in the state of a parameter, or as entries that it adds to a group. `config.lr` is the rate that
    schedules scale. One that `PerturbsWeights` is called on gradients of the weights it moves to.

    Args:
        elementwise: each weight's update depends on that weight's own gradients and state alone.
            Only then are models trained in stacks, where all weights of a model are one row.
        paper: authors, year and arXiv number, or an address.
        tiny: settings for the contract tests; None: the defaults.

    `vitarium.testing.check_optimizer(name)` tests all of it.
    """
    return register("optimizer", name, elementwise=elementwise, paper=paper, tiny=tiny)


@contract
def schedule(
    name: str, *, paper: str = "", tiny: Mapping[str, Any] | None = None
) -> Callable[[Schedule], Schedule]:
    """Register a schedule: a function `(config, step, steps, steps_per_epoch) -> float`.

    It returns the factor of the optimizer's rate at `step` (from 0) of `steps`, and depends on
    nothing else: so there is no state to save, and none to restore.

    `paper` and `tiny` are as of `optimizer`; `vitarium.testing.check_schedule(name)` tests it.
    """
    return register("schedule", name, paper=paper, tiny=tiny)
