"""BitFit: biases learn."""

from torch import nn

from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import NoConfig
from vitarium.core.errors import InvalidInput


@adaptation(
    "biases",
    title="BitFit",
    paper="Ben Zaken et al. 2022, arXiv 2106.10199",
    needs_parent=False,
    stackable=True,
)
def biases(config: NoConfig, model: nn.Module) -> None:
    """BitFit: all biases learn, those of normalization layers included, and the head."""
    train_only(model, _is_bias)
    if not any(_is_bias(name) for name, _ in model.named_parameters()):
        raise InvalidInput("adaptation 'biases': the model has no biases")


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] in ("bias", "q_bias", "v_bias", "qkv_bias")
