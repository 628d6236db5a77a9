"""Whether a model's training goes on with the companions that its parent kept."""

import torch
from torch import nn

from vitarium.blueprint import Imported, ModelSpec, Recipe
from vitarium.blueprint.parents import Parent
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.engine._parent_models import ParentModels
from vitarium.engine.teachers import needs_teachers_companions
from vitarium.engine.tuning.model_size import num_classes, num_outputs
from vitarium.objectives.companions import TeacherWithCompanions
from vitarium.training._companions import ParentCompanions, make_companions
from vitarium.zoo import Zoo
from vitarium.zoo.kept_companions import companions_epoch, companions_state, new_companions


def goes_on_with_companions(
    spec: ModelSpec, origin: Recipe | Imported, kept_after: int | None
) -> tuple[bool, str]:
    """Whether it does, and what is to be remarked about that.

    Args:
        origin: the parent's.
        kept_after: the epoch after which the parent's companions are kept; None: they are not.
    """
    objective = spec.recipe.objective
    if not objective.facts.get("companions") or not isinstance(origin, Recipe):
        return False, ""
    if origin.objective.name != objective.name:
        return False, ""
    if kept_after is None:
        return False, "companions are new: the parent kept none"
    if spec.conversion:
        return (
            False,
            "companions are new: an operator changed the model beside them",
        )
    if spec.parent_epoch != kept_after:
        epochs = f"the parent's are those after epoch {kept_after}, not {spec.parent_epoch}"
        return False, f"companions are new: {epochs}"
    return True, "companions are the parent's"


def parent_companions(spec: ModelSpec, zoo: Zoo) -> ParentCompanions | None:
    """Of a model's parent in the zoo; None: from scratch. Raises CorruptFile."""
    if spec.parent is None:
        return None
    folder = zoo.folder(spec.parent)
    origin, kept_after = folder.spec().origin, companions_epoch(folder)
    goes_on, remark = goes_on_with_companions(spec, origin, kept_after)
    if not goes_on:
        return ParentCompanions(None, remark)
    return ParentCompanions(companions_state(folder), remark, _objective(origin))


def expected_companions(spec: ModelSpec, parent: Parent, parents: ParentModels) -> ParentCompanions:
    """As `parent_companions`, before the parent is trained: its state is on the meta device.

    Raises CorruptFile and InvalidInput.
    """
    planned = parents.planned.get(parent.id)
    if planned:
        kept_after = planned.epochs if planned.keep_companions else None
    else:
        zoo = parents.zoo
        kept_after = companions_epoch(zoo.folder(parent.id)) if zoo and parent.id in zoo else None
    goes_on, remark = goes_on_with_companions(spec, parent.origin, kept_after)
    if not goes_on:
        return ParentCompanions(None, remark)
    if planned is None:
        assert parents.zoo
        companions_file = parents.zoo.folder(parent.id).companions()
        assert companions_file
        shapes = {
            name: torch.empty(stored.shape, device="meta")
            for name, stored in companions_file.tensors.items()
        }
        return ParentCompanions(shapes, remark, _objective(parent.origin))
    companions = hollow_companions(parent, parents)
    assert companions
    return ParentCompanions(companions.state_dict(), remark, planned.objective)


def hollow_companions(parent: Parent, parents: ParentModels) -> nn.Module | None:
    """Those that a parent keeps, on the meta device; None: it keeps none. Raises CorruptFile."""
    planned, zoo = parents.planned.get(parent.id), parents.zoo
    with meta_device():
        if planned is None:
            if not zoo or parent.id not in zoo:
                return None
            folder = zoo.folder(parent.id)
            if companions_epoch(folder) is None:
                return None
            return new_companions(folder.spec(), folder.about())
        if not planned.keep_companions:
            return None
        model = planned.build(num_outputs(planned, parents.data_dir) or 1, plain=False)
        return make_companions(planned, model, num_classes(planned, parents.data_dir) or 1)


def hollow_teacher(
    spec: ModelSpec, teacher: Parent, epoch: int | None, parents: ParentModels
) -> nn.Module | None:
    """A model's teacher as it will be after an epoch (None: its last), on the meta device, with its
    companions where the objective asks them; None where nothing here builds it.

    Raises InvalidInput for an epoch that it does not keep, or does not keep companions of, and
    CorruptFile.
    """
    epoch = teacher.epochs[-1] if epoch is None else epoch
    if epoch not in teacher.epochs:
        raise InvalidInput(f"{teacher.id} keeps epochs {list(teacher.epochs)}, and not {epoch}")
    model = parents.hollow(teacher, epoch).model
    if model is None or not needs_teachers_companions(spec):
        return model
    companions = hollow_companions(teacher, parents)
    if companions is None:
        return model
    if epoch != teacher.epochs[-1]:
        last = f"those after epoch {teacher.epochs[-1]}; name that one"
        raise InvalidInput(f"teacher {teacher.id}@{epoch}: its companions are {last}")
    return TeacherWithCompanions(model, companions)


def needs_companions(spec: ModelSpec, zoo: Zoo) -> bool:
    """Whether it goes on with those of its parent in the zoo. Raises CorruptFile."""
    if spec.parent is None:
        return False
    folder = zoo.folder(spec.parent)
    return goes_on_with_companions(spec, folder.spec().origin, companions_epoch(folder))[0]


def _objective(origin: Recipe | Imported) -> Section | None:
    return origin.objective if isinstance(origin, Recipe) else None
