"""What a model's training starts from."""

from collections.abc import Callable, Mapping

from torch import Tensor

from vitarium.blueprint import ModelSpec
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.base import Ingredients
from vitarium.zoo import Zoo

Read = Callable[[str, int], Mapping[str, Tensor]]
"""Gives a model's weights after an epoch."""


def starting_weights(zoo: Zoo, spec: ModelSpec, read: Read) -> Mapping[str, Tensor] | None:
    """The parent's weights, or what the spec's conversion makes of them; None: from scratch.

    Raises as `read` and the conversion's operator do.
    """
    if spec.parent is None:
        return None
    epoch = spec.parent_epoch or 0
    if spec.conversion is None:
        return read(spec.parent, epoch)
    parent = ModelLoader(zoo).weights(CheckpointRef(spec.parent, epoch))
    unchanged = {name: parent[name] for name in parent if name not in parent.shapes}
    converted = spec.conversion(Ingredients([parent]))
    return unchanged | {n: t.to(parent.dtype(n)) if n in parent.shapes else t for n, t in converted}
