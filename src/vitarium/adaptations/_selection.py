"""Which parameters learn."""

from collections.abc import Callable, Collection
from typing import Annotated

from pydantic import Field
from torch import nn

from vitarium.architectures.features import transformer_blocks
from vitarium.architectures.heads import is_head
from vitarium.core.errors import InvalidInput

Blocks = Annotated[tuple[int, ...], Field(min_length=1)]
"""Numbers of blocks, from 0; negative ones count from the last."""


def train_only(model: nn.Module, learns: Callable[[str], bool]) -> None:
    """Let the head learn, and the parameters whose names `learns` accepts; freeze the others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_head(model, name) or learns(name))


def block_names(model: nn.Module, adaptation: str) -> list[str]:
    """Dotted names of the transformer blocks in order of depth. Raises InvalidInput for none."""
    try:
        return list(transformer_blocks(model))
    except InvalidInput as error:
        raise InvalidInput(f"adaptation '{adaptation}': {error}") from None


def chosen_blocks(model: nn.Module, adaptation: str, numbers: Collection[int] | None) -> list[str]:
    """Names of the blocks with these numbers (from 0; negative ones from the last); None: all.

    Raises InvalidInput for a number that no block has, and for two of the same block: the
    settings would be others, and the model would not.
    """
    names = block_names(model, adaptation)
    if numbers is None:
        return names
    for number in numbers:
        if not -len(names) <= number < len(names):
            raise InvalidInput(
                f"adaptation '{adaptation}': there is no block {number}; the model has "
                f"{len(names)}, from 0 to {len(names) - 1}"
            )
    chosen = {number % len(names) for number in numbers}
    if len(chosen) < len(numbers):
        listed = ", ".join(map(str, numbers))
        raise InvalidInput(
            f"adaptation '{adaptation}': {listed} name a block of {len(names)} twice"
        )
    return [name for number, name in enumerate(names) if number in chosen]


def norm_names(model: nn.Module) -> set[str]:
    """Names of the parameters of normalization layers."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }
