"""What models started from: task vectors are the differences to it."""

from collections.abc import Sequence

import torch

from vitarium.architectures.heads import is_head
from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.heads import Heads, WeightSubset
from vitarium.zoo import Zoo


def common_parent(zoo: Zoo, operator: str, models: Sequence[CheckpointRef]) -> CheckpointRef:
    """What all models were trained from. Raises InvalidInput where that is not one model."""
    parents = {}
    for ingredient in models:
        spec = zoo.folder(ingredient.model).spec()
        if spec.parent is None:
            raise InvalidInput(
                f"{operator} needs what the models started from, and {ingredient.model} has no "
                "parent; name a base (--base ID)"
            )
        parents[spec.parent, spec.parent_epoch or 0] = ingredient.model
    if len(parents) > 1:
        listed = " and ".join(f"{id}@{epoch} of {of}" for (id, epoch), of in parents.items())
        raise InvalidInput(
            f"{operator} needs what the models started from, and they have different parents: "
            f"{listed}; name a base (--base ID)"
        )
    ((id, epoch),) = parents
    return CheckpointRef(model=id, epoch=epoch)


def base_of(
    sources: ModelLoader,
    base: CheckpointRef,
    chosen: Sequence[CheckpointRef],
    models: Sequence[Weights],
    heads: Heads,
) -> Weights:
    """The base's weights, with the head that the models had before they were trained.

    A model that starts from another gets a new head, so the parent's is not what its own started
    from. Raises IncompatibleWeights where the models' heads did not start alike.
    """
    weights = sources.weights(base)
    if heads.separate:
        return heads.backbone(weights)
    names = [name for name in models[0].shapes if is_head(models[0].skeleton, name)]
    starts = [_start(sources, model, base) for model in chosen]
    for model, start in zip(models, starts, strict=True):
        for name in names:
            if name not in start or not torch.equal(start[name], starts[0][name]):
                raise IncompatibleWeights(
                    f"{models[0].name} and {model.name}: their heads started from different "
                    f"values, so {name} has no common base; say what becomes of the heads: "
                    "--heads average, --heads ensemble or --heads ID"
                )
    trunk = WeightSubset(weights, [name for name in weights if not is_head(weights.skeleton, name)])
    return PatchedWeights(trunk, {name: starts[0][name] for name in names})


def _start(sources: ModelLoader, ingredient: CheckpointRef, base: CheckpointRef) -> Weights:
    spec = sources.zoo.folder(ingredient.model).spec()
    if (spec.parent, spec.parent_epoch or 0) != (base.model, base.epoch):
        return sources.weights(base)
    return sources.weights(ingredient).start


class PatchedWeights(Weights):
    """Weights with other tensors in the place of some."""

    def __init__(self, weights: Weights, replacements: dict[str, torch.Tensor]) -> None:
        names = [name for name in weights if name not in replacements]
        shapes = {name: weights.shapes[name] for name in names if name in weights.shapes}
        super().__init__(weights.name, {**{name: weights[name] for name in names}, **replacements})
        self.shapes = {**shapes, **{name: tuple(t.shape) for name, t in replacements.items()}}
