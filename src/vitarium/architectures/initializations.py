"""Initializations: what the weights of linear and convolution layers start from."""

from collections.abc import Callable
from functools import partial

from pydantic import PositiveFloat
from torch import Tensor, nn

from vitarium.architectures.base import initialization
from vitarium.core.config import Config, NoConfig


class Initialization(Config):
    """Reaches every Linear and Conv2d, patch embedding included; LayerNorms, class token and
    position embedding stay as the architecture made them."""

    bias: float | None = None
    """Initial value of every bias of the initialized layers; none: as the architecture sets
    them."""


class TruncNormal(Initialization):
    std: PositiveFloat = 0.02
    """Standard deviation of the normal distribution, before it is cut."""


@initialization("default")
def default(config: NoConfig, module: nn.Module) -> None:
    """The architecture's own initialization: timm's for the model, PyTorch's for a head."""


@initialization("kaiming_normal", paper="He et al. 2015, arXiv 1502.01852")
def kaiming_normal(config: Initialization, module: nn.Module) -> None:
    """Kaiming (He) normal initialization: a normal distribution with variance 2 / fan-in."""
    _fill(config, module, nn.init.kaiming_normal_)


@initialization("kaiming_uniform", paper="He et al. 2015, arXiv 1502.01852")
def kaiming_uniform(config: Initialization, module: nn.Module) -> None:
    """Kaiming (He) uniform initialization: a uniform distribution with variance 2 / fan-in."""
    _fill(config, module, nn.init.kaiming_uniform_)


@initialization("xavier_normal", paper="Glorot & Bengio 2010")
def xavier_normal(config: Initialization, module: nn.Module) -> None:
    """Xavier (Glorot) normal initialization: variance 2 / (fan-in + fan-out)."""
    _fill(config, module, nn.init.xavier_normal_)


@initialization("xavier_uniform", paper="Glorot & Bengio 2010")
def xavier_uniform(config: Initialization, module: nn.Module) -> None:
    """Xavier (Glorot) uniform initialization: variance 2 / (fan-in + fan-out)."""
    _fill(config, module, nn.init.xavier_uniform_)


@initialization("trunc_normal")
def trunc_normal(config: TruncNormal, module: nn.Module) -> None:
    """Truncated normal initialization: a normal distribution cut at two standard deviations."""
    cut = 2 * config.std
    _fill(config, module, partial(nn.init.trunc_normal_, std=config.std, a=-cut, b=cut))


@initialization("mae", paper="He et al. 2022, arXiv 2111.06377")
def mae(config: NoConfig, module: nn.Module) -> None:
    """MAE's: xavier-uniform, the patch convolution as a linear layer; biases 0; tokens N(0, 0.02).

    Tokens are the class token and registers. The default takes a truncated normal of 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.detach().flatten(1))  # changes the weight itself
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for name in ("cls_token", "reg_token"):
            if isinstance(token := getattr(layer, name, None), nn.Parameter):
                nn.init.normal_(token, std=0.02)


def _fill(config: Initialization, module: nn.Module, weight: Callable[[Tensor], Tensor]) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight(layer.weight)
            if config.bias is not None and layer.bias is not None:
                nn.init.constant_(layer.bias, config.bias)
