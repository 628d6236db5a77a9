"""Mean and std by which a recipe normalizes images, where they are not the data set's."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat

from vitarium.core.config import Config
from vitarium.core.printable import brief

OWN_DATA = "data"
"""In a blueprint: mean and std of the data set, whatever the parent's are."""
_FORMS = f"neither `{OWN_DATA}` (the data set's own) nor a mapping {{mean: [...], std: [...]}}"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


class MeanStd(Config):
    """Of pixels in [0, 1]: one value, three (of colors), or one per channel of the model's images.

    Colors become the mean of the three for a model of another number of channels.
    """

    mean: Annotated[tuple[float, ...], BeforeValidator(_as_list), Field(min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_list), Field(min_length=1)]

    @property
    def values(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean, self.std

    def misfit(self, channels: int) -> str:
        """Why it does not fit images of so many channels; empty where it does."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3, channels):
                return (
                    f"{name} has {len(values)} values, and the model's images {channels} channels: "
                    f"give one value, three (colors) or one per channel, or `{OWN_DATA}` for the "
                    "data set's"
                )
        return ""

    def __str__(self) -> str:
        """As `--normalization` takes it, e.g. `0.5/0.5`."""
        return "/".join(",".join(f"{value:.4g}" for value in values) for values in self.values)


def none_for_the_data(value: Any) -> Any:
    """Of what a blueprint has as `normalization`: `data` is None. Raises ValueError."""
    if value == OWN_DATA:
        return None
    if value is not None and not isinstance(value, dict | MeanStd):
        raise ValueError(f"{brief(value)} is {_FORMS}")
    return value
