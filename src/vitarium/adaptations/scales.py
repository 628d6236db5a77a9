"""Scales of branches and of residual paths learn."""

from torch import nn

from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import NoConfig


@adaptation(
    "scales",
    title="layer and path scales",
    paper="Chang et al. 2023, arXiv 2308.06548",
    needs_parent=False,
    stackable=True,
)
def scales(config: NoConfig, model: nn.Module) -> None:
    """Layer scales and the scales of a `path_ensemble`'s paths learn, and the head."""
    train_only(
        model, lambda name: name == "path_scales" or name.endswith((".ls1.gamma", ".ls2.gamma"))
    )
