"""What builds weights whose architecture nobody named: as the file says, or as its shapes tell."""

from collections.abc import Mapping
from typing import Any

import timm
import torch

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section
from vitarium.formats._weight_checks import built_shapes, misfit
from vitarium.formats.importers._structure import Shapes, Structure, built_structure, last_height
from vitarium.formats.importers._vit_shapes import (
    AmbiguousShapes,
    image_settings,
    infer_head,
    infer_vit,
)
from vitarium.formats.weights import StateDict

TENSORS_ALONE = "none"
"""As the name of an architecture: the tensors are kept, and nothing builds them."""


def tensors_alone(shapes: Shapes, num_classes: int | None) -> Structure:
    return Structure(None, None, last_height(shapes) if num_classes is None else num_classes)


def inferred_structure(
    read: StateDict[torch.Size],
    settings: Mapping[str, Any],
    num_classes: int | None,
    head: Section | None = None,
    *,
    otherwise: str,
) -> tuple[Structure, list[str]]:
    """What builds weights, and notes on how that is known.

    Args:
        settings: of the architecture, without its name; they are not inferred.
        num_classes: number of outputs; None: as the head's weights tell.
        head: None: as the weights tell.
        otherwise: where an architecture can be named, too: the end of the error's hint.

    Raises InvalidInput with the reason and what to do.
    """
    if structure := _named_in_file(read, settings, num_classes, head):
        return structure, [f"architecture {read.architecture}, as the file says"]
    shapes = read.values
    try:
        inferred, assumptions = infer_vit(shapes, settings)
        if head is None:
            head, outputs = infer_head(shapes)
            num_classes = outputs if num_classes is None else num_classes
        structure = built_structure(inferred, head, shapes, num_classes)
        if reason := _misfit(structure, shapes):
            raise InvalidInput(reason)
    except InvalidInput as error:
        why = f"its architecture cannot be inferred: {'; '.join(str(error).splitlines())}"
        how = "" if isinstance(error, AmbiguousShapes) else f"; {_how_to_name_it(otherwise)}"
        raise InvalidInput(f"{why}{how}") from None
    sizes = {key: value for key, value in inferred.items() if key not in ("name", "model")}
    listed = "".join(f" {key}={value}" for key, value in sizes.items())
    name = inferred.get("model", inferred["name"])
    outputs = structure.num_outputs
    what = f"architecture inferred from names and shapes: {name}{listed}, {outputs} outputs"
    return structure, [f"{what}; assumed, as weights do not tell: {', '.join(assumptions)}"]


def _how_to_name_it(otherwise: str) -> str:
    return (
        f"name it, {parameter('architecture', 'NAME')} (a model of timm, or one of `vitarium "
        "plugins architectures`), import the tensors alone, "
        f"{parameter('architecture', TENSORS_ALONE)}, or {otherwise}"
    )


def _named_in_file(
    read: StateDict[torch.Size],
    settings: Mapping[str, Any],
    num_classes: int | None,
    head: Section | None,
) -> Structure | None:
    """Of a model of timm that the file names and its weights fit, for images of any size."""
    if not read.architecture or not timm.is_model(read.architecture):
        return None
    for images in ({}, *image_settings(read.values)):
        values = {"name": "timm", "model": read.architecture, **images, **settings}
        try:
            structure = built_structure(values, head, read.values, num_classes)
        except InvalidInput:
            continue
        if not _misfit(structure, read.values):
            return structure
    return None


def _misfit(structure: Structure, shapes: Shapes) -> str | None:
    architecture, head, num_outputs = structure
    assert architecture
    return misfit(shapes, built_shapes(architecture, head, num_outputs))
