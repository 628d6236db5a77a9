"""What the models of a merge started from: their base, and the head that stands on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitarium.blueprint import CheckpointRef, ModelSpec
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.core.parameters import parameter
from vitarium.evaluation.compatible import mismatch
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.weight_subset import WeightSubset
from vitarium.zoo import Zoo


def _advice() -> str:
    choices = ", ".join(parameter("heads", choice) for choice in ("average", "ensemble"))
    return (
        f"name a base that has the models' head, {parameter('base', 'ID')}, or say what becomes of "
        f"the heads: {choices} or {parameter('heads', 'ID')}"
    )


def common_parent(zoo: Zoo, operator: str, models: Sequence[CheckpointRef]) -> CheckpointRef:
    """What all models were trained from. Raises InvalidInput where that is not one of the zoo."""
    parents = {}
    for ref in models:
        parent = zoo[ref.model].parent_checkpoint
        if parent is None:
            raise InvalidInput(
                f"{operator} needs what the models started from, and {ref.model} has no "
                f"parent; name a base: {parameter('base', 'ID')}"
            )
        if not zoo.folder(parent.model).exists:
            raise InvalidInput(
                f"{operator} needs what the models started from, and {parent}, the parent of "
                f"{ref.model}, is not in the zoo; name a base: {parameter('base', 'ID')}"
            )
        parents[parent] = ref.model
    if len(parents) > 1:
        listed = " and ".join(f"{parent} of {model}" for parent, model in parents.items())
        raise InvalidInput(
            f"{operator} needs what the models started from, and they have different parents: "
            f"{listed}; name a base: {parameter('base', 'ID')}"
        )
    return next(iter(parents))


def common_head(
    loader: ModelLoader, refs: Sequence[CheckpointRef], base: Weights, base_ref: CheckpointRef
) -> dict[str, Tensor]:
    """The head from which all models' heads started, tensors [*shape] by name.

    Raises IncompatibleWeights where they did not start alike, or it is not known from what.
    """
    first = loader.weights(refs[0])
    names = list(WeightSubset(first, head=True).shapes)
    starts = [_start_of_head(loader, ref, base, base_ref) for ref in refs]
    for ref, start in zip(refs, starts, strict=True):
        for name in names:
            if not torch.equal(start[name], starts[0][name]):
                raise IncompatibleWeights(
                    f"{first.name} and {ref}: their heads started from different values, so {name} "
                    f"has no common base; {_advice()}"
                )
    return {name: starts[0][name] for name in names}


def _start_of_head(
    loader: ModelLoader, ref: CheckpointRef, base: Weights, base_ref: CheckpointRef
) -> Weights:
    """A model that has the head which this one had before its training.

    A model that is trained here starts from its parent with a new head, which its first epoch has.
    Of others the base's head is what theirs started from, if it is of the same shape and classes.
    """
    model = loader.zoo[ref.model]
    weights, spec = loader.weights(ref), model.spec
    if model.parent_checkpoint == base_ref and spec.initial_epoch is not None:
        try:
            return weights.start
        except NotApplicable as error:
            if not (isinstance(spec, ModelSpec) and spec.keep_head):
                what = "so what its head started from is not known"
                raise IncompatibleWeights(f"{error}, {what}; {_advice()}") from None
    classes = [loader.zoo.folder(r.model).about().classes for r in (ref, base_ref)]
    if all(classes) and classes[0] != classes[1]:
        why = "have different classes"
    elif WeightSubset(weights, head=True).shapes != WeightSubset(base, head=True).shapes:
        why = "have heads of different shapes"
    elif mismatch(weights, base):
        why = "have heads of different architectures"
    else:
        return base
    raise IncompatibleWeights(
        f"{ref} and its base {base_ref} {why}, so its head has no base; {_advice()}"
    )
