"""All weights learn."""

from torch import nn

from vitarium.adaptations.base import adaptation
from vitarium.core.config import NoConfig


@adaptation("full", title="full fine-tuning", needs_parent=False, stackable=True)
def full(config: NoConfig, model: nn.Module) -> None:
    """All weights learn."""
