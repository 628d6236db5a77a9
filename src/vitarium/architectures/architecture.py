"""What the configurations of all architectures have in common."""

from vitarium.config import Config


class ArchitectureConfig(Config):
    """Base of an architecture's configuration; it knows the images that the model takes."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        raise TypeError(f"{type(self).__name__} has to define input_size")
