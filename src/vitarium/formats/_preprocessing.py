"""How an image becomes what a model was trained on: other programs have to be told."""

from pydantic import PositiveFloat

from vitarium.blueprint import Spec
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.data.preprocessing import Preprocessing, preprocessing_of


class Preprocessed(Config):
    """Base of an exporter's configuration that tells how images are prepared."""

    mean: tuple[float, ...] | None = None
    """Mean of each channel, of pixels in [0, 1]; needed only if the zoo does not know it."""
    std: tuple[PositiveFloat, ...] | None = None
    """Standard deviation of each channel, of pixels in [0, 1]; needed only if the zoo does not know
    it."""


def preprocessing(spec: Spec, config: Preprocessed) -> Preprocessing:
    """As for scoring. Raises InvalidInput where the normalization is neither known nor set."""
    known = preprocessing_of(spec)
    channels = known.input_size[0]
    if config.mean and config.std:
        for values in (config.mean, config.std):
            if len(values) != channels:
                what = f"model {spec.id} takes images of {channels} channels"
                raise InvalidInput(f"{what}, but the normalization has {len(values)}")
        return known.normalized_by((config.mean, config.std))
    if known.normalization is None:
        raise InvalidInput(
            f"model {spec.id}: nothing is known of how its images were normalized; give the "
            f"settings mean and std, e.g. {parameter('mean', [0.5, 0.5, 0.5])} "
            f"{parameter('std', [0.5, 0.5, 0.5])}"
        )
    return known
