"""What the linear layers of a transformer's blocks are given, on training images."""

from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack, suppress
from functools import partial

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.architectures.features import transformer_blocks
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.evaluation.data import EvalData

Statistic = Callable[[Tensor], Tensor]
"""Of inputs [n, in_features], float64: a sum over them, [...]."""


class Calibration(Config):
    """The training images on which inputs of layers are counted."""

    num_images: PositiveInt = 256
    """Largest number of training images to calibrate on, of each class in proportion."""
    batch_size: PositiveInt = 64
    """Images per forward pass; affects memory and speed only."""


class _BlockDone(Exception):
    """Ends a forward pass after the block that is looked at."""


def linear_layers(model: nn.Module, weights: Container[str]) -> dict[str, dict[str, nn.Linear]]:
    """By block, in order, its linear layers by the names of their weights, those in `weights`.

    Raises IncompatibleWeights where there is none.
    """
    try:
        named_blocks = transformer_blocks(model)
    except InvalidInput as error:
        raise IncompatibleWeights(f"{error}; name a vision transformer") from None
    layers = {
        block: {
            f"{block}.{name}.weight": layer
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear) and f"{block}.{name}.weight" in weights
        }
        for block, module in named_blocks.items()
    }
    if not any(layers.values()):
        kind = type(model).__name__
        raise IncompatibleWeights(f"no block of {kind} has a linear layer of its own; name a vit")
    return layers


@torch.no_grad()
def input_means(
    model: nn.Module,
    block: str,
    layers: Mapping[str, nn.Linear],
    examples: EvalData,
    config: Calibration,
    statistic: Statistic,
) -> dict[str, Tensor]:
    """By layer, the mean over images and tokens of a statistic of its inputs, float64, on the CPU.

    The model runs up to the block that has the layers. Those that are never called are left out.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def collect(name: str, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].flatten(0, -2).double()
        sums[name] = sums.get(name, 0) + statistic(rows)
        counts[name] = counts.get(name, 0) + len(rows)

    def stop(*_: object) -> None:
        raise _BlockDone

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(collect, name)))
        hooks.enter_context(model.get_submodule(block).register_forward_hook(stop))
        for batch in examples.first(config.num_images).batches(config.batch_size):
            with suppress(_BlockDone):
                model(batch.images)
    return {name: (sums[name] / count).cpu() for name, count in counts.items()}


def gram(rows: Tensor) -> Tensor:
    """Inputs [n, in_features] -> the sum of x x', [in_features, in_features]"""
    return rows.T @ rows


def squares(rows: Tensor) -> Tensor:
    """Inputs [n, in_features] -> the sum of their squares, [in_features]"""
    return rows.square().sum(0)
