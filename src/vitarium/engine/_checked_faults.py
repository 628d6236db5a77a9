"""Models without memory, and what goes wrong with them as problems of a blueprint."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from vitarium.blueprint import Recipe
from vitarium.core.config import InvalidConfig, Problem
from vitarium.core.devices import lacks_values, meta_device
from vitarium.core.errors import InvalidInput, VitariumError


def built_hollow(recipe: Recipe, outputs: int) -> nn.Module:
    """Without memory. Raises InvalidInput with whatever its libraries say against it."""
    with meta_device(), faults_of_libraries("it cannot be built"):
        return recipe.build_unadapted(outputs)


def adapt_hollow(recipe: Recipe, model: nn.Module) -> None:
    """In place, without memory. Raises InvalidInput as `built_hollow` does."""
    with meta_device(), faults_of_libraries("the model cannot be adapted"):
        recipe.adapt(model)


@contextmanager
def faults_of_libraries(problem: str) -> Iterator[None]:
    """Exceptions of any kind, since plug-ins and timm check sizes in many ways, as InvalidInput."""
    try:
        yield
    except VitariumError:
        raise
    except Exception as error:
        # torch appends where in its C++ code a number overflows
        text, *_ = str(error).split("\nException raised from ")
        raise InvalidInput(f"{problem}: {type(error).__name__}: {text}") from None


@contextmanager
def values_may_be_needed() -> Iterator[None]:
    """What torch cannot do without values, such as to choose by them, is no fault of the model."""
    try:
        yield
    except VitariumError:
        raise
    except Exception as error:
        if not lacks_values(error):
            raise


@contextmanager
def problems_at(*path: str) -> Iterator[list[Problem]]:
    """What is wrong inside becomes a problem of this path in the list."""
    problems: list[Problem] = []
    try:
        yield problems
    except InvalidConfig as error:
        problems += [problem.under(*path) for problem in error.problems]
    except VitariumError as error:
        problems.append(Problem(path, str(error)))
