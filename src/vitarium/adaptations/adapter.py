"""Bottleneck adapters: small MLPs that learn, beside or behind those of a frozen model."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.adaptations._extension import Extension, extend
from vitarium.adaptations._selection import Blocks, chosen_blocks, train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput

_Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, _Activation] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}
_SCALES = {"parallel": 0.1, "serial": 1.0}


class Adapters(Config):
    bottleneck: int = Field(64, ge=1, le=2**16)
    """Width of an adapter: units between its two layers."""
    position: Literal["parallel", "serial"] = "parallel"
    """What an adapter sees: the inputs of the MLP (parallel, AdaptFormer), or its outputs (serial,
    Houlsby et al., as Pfeiffer et al. 2021 place it)."""
    scale: PositiveFloat | None = None
    """Factor of what an adapter adds to the MLP's outputs; None: 0.1 in parallel, 1 in series."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Activation function of an adapter."""
    blocks: Blocks | None = None
    """Numbers of the blocks, from 0; negative ones count from the last. None: all."""


class Bottleneck(nn.Module):
    """scale * up(activation(down(inputs))): [..., width] -> the same; zero at the start."""

    def __init__(self, width: int, config: Adapters) -> None:
        super().__init__()
        self.down = nn.Linear(width, config.bottleneck)  # Kaiming uniform, a = sqrt 5
        self.up = nn.Linear(config.bottleneck, width)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)
        self.activation = _ACTIVATIONS[config.activation]
        self.scale = config.scale or _SCALES[config.position]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.up(self.activation(self.down(inputs)))


class ParallelAdapted(Extension):
    """An MLP with an adapter beside it, at `adapter`."""

    adapter: Bottleneck

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] -> [..., width]"""
        outputs: Tensor = super().forward(inputs)  # type: ignore[misc]
        return outputs + self.adapter(inputs)


class SerialAdapted(Extension):
    """An MLP with an adapter behind it, at `adapter`."""

    adapter: Bottleneck

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] -> [..., width]"""
        outputs: Tensor = super().forward(inputs)  # type: ignore[misc]
        return outputs + self.adapter(outputs)


@adaptation(
    "adapter",
    title="adapters",
    paper="Houlsby et al. 2019, arXiv 1902.00751; Chen et al. 2022, arXiv 2205.13535, equation 4",
    adds_modules=True,
    stackable=True,
    tiny={"bottleneck": 4},
)
def adapter(config: Adapters, model: nn.Module) -> None:
    """Adapters: a bottleneck of two layers learns at the MLP of each block, and the head.

    It is inside of the block's branch: layer scale and stochastic depth act on it, too.
    """
    train_only(model, lambda name: False)
    mixin = ParallelAdapted if config.position == "parallel" else SerialAdapted
    for block in chosen_blocks(model, "adapter", config.blocks):
        mlp: Any = model.get_submodule(f"{block}.mlp")
        mlp.adapter = Bottleneck(_width(mlp, block), config)
        extend(mlp, mixin)


def _width(mlp: Any, block: str) -> int:
    """Of the tokens that an MLP takes; one that stands for another's weights names its `lender`."""
    layers = (m for m in getattr(mlp, "lender", mlp).modules() if isinstance(m, nn.Linear))
    first = next(layers, None)
    if first is None:
        raise InvalidInput(
            f"adaptation 'adapter': {block}.mlp is a {type(mlp).__name__} without linear layers; "
            "name the `blocks` that have some"
        )
    return first.in_features
