"""A linear probe."""

from torch import nn

from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.core.config import NoConfig


@adaptation(
    "head", title="linear probe", needs_parent=False, frozen_in_eval_mode=True, stackable=True
)
def head(config: NoConfig, model: nn.Module) -> None:
    """Only the head learns: a probe of the frozen backbone."""
    train_only(model, lambda name: False)
