"""Finds the teacher that a recipe names: its parent, a model of the zoo, or a file."""

import hashlib
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from vitarium.blueprint import CheckpointRef, ModelSpec
from vitarium.core.devices import meta_device
from vitarium.core.errors import CorruptFile, IncompatibleWeights, InvalidInput, UnknownName
from vitarium.core.files import digest
from vitarium.core.weight_suffixes import SUFFIXES, weight_suffix
from vitarium.formats.weights import read_state_dict
from vitarium.objectives.companions import TeacherWithCompanions
from vitarium.objectives.distillation.base import TeacherRef
from vitarium.zoo import Zoo
from vitarium.zoo.kept_companions import companions_epoch

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
"""What a folder in timm's layout holds."""


def teacher_of(spec: ModelSpec) -> TeacherRef | None:
    """Whom the model's objective asks, if any."""
    objective = spec.recipe.objective
    teacher_from: Callable[..., TeacherRef] | None = objective.plugin.facts.get("teacher")
    return teacher_from(objective.config) if teacher_from else None


def planned_teacher(spec: ModelSpec, ids: Container[str]) -> str | None:
    """The id of a model's teacher where that is one of these; None: it is another, or there is
    none, or it is the parent."""
    teacher = teacher_of(spec)
    if teacher is None or teacher.is_path or teacher.is_parent:
        return None
    return teacher.model if teacher.model in ids else None


def load_teacher(spec: ModelSpec, zoo: Zoo) -> nn.Module | None:
    """The teacher of a model, ready to be asked, on the CPU; None where it has none.

    Raises InvalidInput (nothing there, not what the recipe says, or not finite), UnknownName,
    CorruptFile, UntrustedFile and IncompatibleWeights.
    """
    teacher = teacher_of(spec)
    return None if teacher is None else named_teacher(teacher, spec, zoo)


def named_teacher(teacher: TeacherRef, spec: ModelSpec, zoo: Zoo) -> nn.Module:
    """The teacher that a model names, on the CPU; raises as `load_teacher`."""
    model = _loaded(teacher, spec, zoo)
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise InvalidInput(
                f"teacher '{teacher.source}' has values in {name} that are not finite: nothing can "
                "be learned from it; choose another"
            )
    return model


def _loaded(teacher: TeacherRef, spec: ModelSpec, zoo: Zoo) -> nn.Module:
    if teacher.is_path:
        return _from_path(teacher, zoo)
    ref = in_zoo(teacher, spec, zoo)
    if not needs_teachers_companions(spec):
        return zoo.load(*ref)
    if (kept_after := companions_epoch(zoo.folder(ref.model))) not in (None, ref.epoch):
        raise InvalidInput(
            f"teacher {ref}: its companions are those after epoch {kept_after}; name that one"
        )
    return TeacherWithCompanions(zoo.load(*ref), zoo.companions(ref.model)).eval()


def needs_teachers_companions(spec: ModelSpec) -> bool:
    """Whether the model's objective asks its teacher's decoder, or the like."""
    return bool(spec.recipe.objective.facts.get("teacher_companions"))


def in_zoo(teacher: TeacherRef, spec: ModelSpec, zoo: Zoo) -> CheckpointRef:
    """A teacher that is a model of the zoo.

    Raises InvalidInput where a parent is asked for that there is not, or where a model without an
    epoch is still being trained: its last weights are not known yet. Raises UnknownName.
    """
    if teacher.is_parent:
        if spec.parent is None:
            raise InvalidInput(f"model {spec.id} is to learn from its parent, and has none")
        return CheckpointRef(spec.parent, spec.parent_epoch or 0)
    try:
        ref = zoo.at(teacher.source)
    except UnknownName as error:
        raise InvalidInput(
            f"teacher: {error}; a model of the zoo {zoo.path} was looked for, since a folder is "
            f"written ./{teacher.source} and a file ends in {', '.join(SUFFIXES)}"
        ) from None
    if "@" not in teacher.source and zoo.folder(ref.model).result() is None:
        wait = f"teacher {ref.model} is not trained to its end; wait for it"
        raise InvalidInput(f"{wait}, or name an epoch: {ref}")
    return ref


def teacher_files(teacher: TeacherRef, zoo: Zoo) -> dict[str, Path]:
    """The files of a teacher outside of the zoo, by where a shipped zoo has them."""
    path = find_path(teacher, zoo)
    if teacher.is_file:
        return {shipped(teacher): path}
    return {f"{shipped(teacher)}/{name}": path / name for name in (SETTINGS, WEIGHTS)}


def shipped(teacher: TeacherRef) -> str:
    """Where in its temporary zoo a worker that does not see the files has them."""
    name = hashlib.sha256(teacher.source.encode()).hexdigest()[:12]
    return f"teachers/{name}{weight_suffix(teacher.source)}"


def find_path(teacher: TeacherRef, zoo: Zoo) -> Path:
    """Where a teacher outside of the zoo lies. Raises InvalidInput where it is nowhere."""
    brought = zoo.path / shipped(teacher)
    if brought.exists():
        return brought
    source = Path(teacher.source)
    paths = list(dict.fromkeys((source.absolute(), (zoo.path / source).absolute())))
    for path in paths:
        files = [path] if teacher.is_file else [path / name for name in (SETTINGS, WEIGHTS)]
        if all(file.is_file() for file in files):
            return path
    what = "file" if teacher.is_file else f"folder with {SETTINGS} and {WEIGHTS}"
    raise InvalidInput(
        f"there is no teacher '{teacher.source}': no {what} at {' nor at '.join(map(str, paths))}"
    )


def _from_path(teacher: TeacherRef, zoo: Zoo) -> nn.Module:
    path = find_path(teacher, zoo)
    file = path if teacher.is_file else path / WEIGHTS
    if teacher.sha256 is not None and (actual := digest(file)) != teacher.sha256:
        what = f"its SHA-256 is {actual}, and teacher_sha256 {teacher.sha256}"
        raise CorruptFile(file, f"{what}: it is another teacher")
    weights = read_state_dict(file, file.parent).values
    if teacher.is_file:
        model = _built(teacher, weights, file)
    else:
        try:
            model = timm.create_model(f"local-dir:{path}", pretrained=False)
        except Exception as error:  # what a wrong configuration makes timm raise is of any kind
            raise CorruptFile(path / SETTINGS, f"timm builds no model of it: {error}") from None
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        faults = "; ".join(line.strip() for line in str(error).splitlines()[1:6])
        fault = f"the teacher's weights in {file} do not fit its architecture: {faults}"
        raise IncompatibleWeights(fault) from None
    return model.eval()


def _built(teacher: TeacherRef, weights: Mapping[str, Tensor], file: Path) -> nn.Module:
    """The model of a file with weights alone, with as many outputs as it has weights for."""
    with meta_device():
        one_output, two_outputs = (_with_head(teacher, outputs).state_dict() for outputs in (1, 2))
    # the tensors that grow with the number of outputs tell it
    for name in (name for name in one_output if name in weights):
        sizes = zip(one_output[name].shape, two_outputs[name].shape, strict=True)
        axes = [axis for axis, (first, second) in enumerate(sizes) if first != second]
        if axes and weights[name].dim() > axes[0]:
            return _with_head(teacher, weights[name].shape[axes[0]])
    raise IncompatibleWeights(
        f"the weights in {file} have no head as teacher_architecture makes it; say which they have "
        "in teacher_head"
    )


def _with_head(teacher: TeacherRef, num_outputs: int) -> nn.Module:
    assert teacher.architecture
    model: nn.Module = teacher.architecture(num_outputs)
    if teacher.head:
        teacher.head(model, num_outputs)
    return model
