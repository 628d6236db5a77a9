"""Normalization layers learn."""

from torch import nn

from vitarium.adaptations._selection import norm_names, train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import NoConfig


@adaptation(
    "norms",
    title="normalization layers",
    paper="Frankle et al. 2021, arXiv 2003.00152",
    needs_parent=False,
    stackable=True,
)
def norms(config: NoConfig, model: nn.Module) -> None:
    """Scales and biases of all normalization layers learn, and the head."""
    train_only(model, norm_names(model).__contains__)
