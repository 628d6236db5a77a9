"""What builds a model of foreign weights: named by the user, inferred, or unknown."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import JsonValue, NonNegativeInt, model_validator
from torch import Tensor

from vitarium.architectures.create import named_architecture
from vitarium.architectures.heads import head_prefix, num_features
from vitarium.blueprint.overrides import apply
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section, section
from vitarium.formats._state_dict import StateDictSettings
from vitarium.formats.weights import read_state_dict, read_state_dict_shapes

Shapes = Mapping[str, torch.Size]


class ModelSettings(StateDictSettings):
    """Settings of the importers of plain files of weights."""

    architecture: str | dict[str, JsonValue] | None = None
    """A model of timm, or one of vitarium's architectures or presets; its settings are
    `architecture.img_size`, ..."""
    num_classes: NonNegativeInt | None = None
    """Number of outputs; default: the number of rows of the head's weight."""

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        """`architecture.img_size=28` on the command line is a setting of the architecture."""
        if not isinstance(values, Mapping):
            return values
        return apply({}, {key: value for key, value in values.items() if value is not None})


class Structure(NamedTuple):
    """What builds a model, and how many outputs it has; 0 without a head."""

    architecture: Section | None
    head: Section | None
    num_outputs: int


def weight_readers(
    file: Path, root: Path, settings: StateDictSettings
) -> tuple[Callable[[], dict[str, Tensor]], Callable[[], Shapes]]:
    """`load` and `shapes` of a ForeignEpoch in a file."""
    return (
        lambda: read_state_dict(file, root, settings).values,
        lambda: read_state_dict_shapes(file, root, settings).values,
    )


def with_name(architecture: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an architecture, its name that of a plug-in; without a name as they are.
    Raises UnknownName."""
    if isinstance(architecture, str):
        return named_architecture(architecture)
    settings = dict(architecture)
    name = settings.pop("name", None)
    return {**named_architecture(str(name)), **settings} if name is not None else settings


def built_structure(
    architecture: Mapping[str, Any], head: Any, shapes: Shapes, num_outputs: int | None
) -> Structure:
    """Of settings with a name; the head's weights tell the number of outputs where it is None.
    Raises InvalidConfig."""
    built_by = section("architecture", architecture)
    head_section = section("head", head) if head is not None else None
    if num_outputs is None:
        with meta_device():
            prefix = f"{head_prefix(built_by(1))}."
        num_outputs = last_height({k: shape for k, shape in shapes.items() if k.startswith(prefix)})
    return Structure(built_by, head_section, num_outputs)


def features_of(architecture: Section) -> int:
    """Width of the features before the head: the outputs of a model without one."""
    with meta_device():
        return num_features(architecture(1))


def last_height(shapes: Shapes) -> int:
    """Height of the last matrix: of the last fully connected layer's weight; 0 where none is."""
    heights = [shape[0] for shape in shapes.values() if len(shape) == 2]
    return heights[-1] if heights else 0
