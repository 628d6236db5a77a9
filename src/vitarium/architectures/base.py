"""What the configurations of all architectures have in common, and what their parts may do."""

from typing import Protocol, runtime_checkable

from vitarium.core.config import Config


class ArchitectureConfig(Config):
    """Base of an architecture's configuration; it knows the images that the model takes."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        raise TypeError(f"{type(self).__name__} has to define input_size")


@runtime_checkable
class ActsAfterSteps(Protocol):
    """A part of a model that changes its weights by itself, too.

    Such models are trained one by one, never stacked.
    """

    def after_step(self) -> None:
        """Called after every step of the optimiser."""
