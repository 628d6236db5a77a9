"""Samples of generating factors: points of a space of factors, spread evenly or at random.

The first points of a larger sample are those of a smaller one, and none depends on the version of a
library: so a stage whose count is raised keeps its models, on every machine.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PlainValidator, model_validator

from vitarium.blueprint.distributions import Distribution, distribution
from vitarium.core.config import Config
from vitarium.core.printable import brief

_BITS = 30
"""Of a coordinate of a Sobol point."""
_MAX_COUNT = 2**20
"""Points are listed in memory, and each is a model at least."""


def plain_paths(values: dict[str, Any]) -> dict[str, Any]:
    """Factors by their paths, in which hyphens and underscores are alike."""
    return {path.replace("-", "_"): value for path, value in values.items()}


class Sample(Config):
    """So many points of a space of factors; each gives a stage one model more.

    Every point of the grid, every variant and every parent gets the same points.
    """

    space: Annotated[
        dict[str, Annotated[Distribution, PlainValidator(distribution)]],
        AfterValidator(plain_paths),
    ] = Field({}, alias="factors")
    """In the file it is called `factors`: factor, by its path -> `{uniform: [0, 0.1]}`,
    `{log_uniform: [1e-4, 1e-2]}`, `{integers: [1, 8]}` (bounds included) or
    `{choice: [adamw, sgd]}`."""
    count: int = Field(16, ge=1, le=_MAX_COUNT)
    """Number of points. The first of them are those of a smaller count."""
    seed: NonNegativeInt = 0
    """Root of the points' randomness."""
    method: Literal["sobol", "random"] = "sobol"
    """`sobol`: spread evenly, most of all where the count is a power of two; `random`: independent
    of each other."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, values: Any) -> Any:
        if not isinstance(values, dict | cls):
            raise ValueError(f"{brief(values)} is not a mapping with `count` and `factors`")
        return values

    def points(self) -> Iterator[dict[str, Any]]:
        """A value of every factor, by its path, `count` times."""
        paths = sorted(self.space)
        columns = _sobol if self.method == "sobol" else _random
        for coordinates in zip(*columns(self, paths), strict=True):
            yield {p: self.space[p].value(u) for p, u in zip(paths, coordinates, strict=True)}

    def __str__(self) -> str:
        return f"{self.count} samples ({self.method}, seed {self.seed}) of {', '.join(self.space)}"


def _random(sample: Sample, paths: list[str]) -> list[list[float]]:
    """Of each factor `count` numbers of [0, 1), from a stream that is named after it."""
    from vitarium.core.seeds import derive

    draws = range(sample.count)
    return [[(derive(sample.seed, "sample", p, i) >> 10) / 2**53 for i in draws] for p in paths]


def _sobol(sample: Sample, paths: list[str]) -> list[list[float]]:
    """Of each factor a coordinate in [0, 1) of the first `count` points of Sobol's sequence."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(len(paths), scramble=False, bits=_BITS)
    points = sequence.random_base2((sample.count - 1).bit_length())[: sample.count]
    return [_scrambled(u, sample.seed, p) for p, u in zip(paths, points.T.tolist(), strict=True)]


def _scrambled(coordinates: list[float], seed: int, path: str) -> list[float]:
    """One coordinate of all points after a random linear scramble and a digital shift.

    Matousek 1998, J. Complexity 14, section 4: each bit becomes the parity of itself and a random
    choice of those above it, and of the shift. As scipy does it, whose random choice however is
    that of a version of NumPy's generators.
    """
    from vitarium.core.seeds import derive  # imports torch

    rows = []
    for bit in range(_BITS):
        above = derive(seed, "sample", path, "above", bit) % 2 ** (_BITS - 1 - bit)
        rows.append((above << 1 | 1) << bit)
    shift = derive(seed, "sample", path, "shift") % 2**_BITS
    scrambled = []
    for u in coordinates:
        x = int(u * 2**_BITS)
        bits = sum(((x & row).bit_count() & 1) << bit for bit, row in enumerate(rows))
        scrambled.append((bits ^ shift) / 2**_BITS)
    return scrambled
