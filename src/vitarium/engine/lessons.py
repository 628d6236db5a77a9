"""Write a teacher's outputs once for many students (`stored_lessons`), and check what is stored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitarium.blueprint import Blueprint, ModelSpec, plan
from vitarium.core.devices import find_devices
from vitarium.core.errors import CorruptFile, InvalidInput, VitariumError
from vitarium.core.progress import SILENT, Progress
from vitarium.engine._lesson_writer import LessonDrift, LessonWriter, WrittenLessons
from vitarium.engine.parents import parents_in
from vitarium.objectives.distillation import _lesson_files as lesson_files
from vitarium.objectives.distillation.stored_lessons import (
    StoredLessons,
    image_factors,
    teacher_source,
)
from vitarium.training.options import Precision, TrainOptions, numerics
from vitarium.zoo import Zoo


def write_lessons(
    blueprint: Blueprint | str,
    zoo: Zoo | str | Path | None = None,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> list[WrittenLessons]:
    """Write the lessons that a blueprint's models with the objective `stored_lessons` learn.

    Epochs that are there already stay; an interrupted call is resumed by the same call.

    Args:
        zoo: where teachers that are models are, and parents; None: NAME-zoo.
        out: the folder of the lessons; None: as the blueprint has it. For a single one alone.

    Raises InvalidInput where models that share a folder ask for different lessons, or what is
    there was written for other ones; and as finding a teacher and loading data do.
    """
    loaded = Blueprint.load(blueprint) if isinstance(blueprint, str) else blueprint
    # no zoo needs to be there, since a teacher may be a file
    of_teacher = Zoo(Path(f"{loaded.name}-zoo")) if zoo is None else Zoo.open(zoo)
    finder = parents_in(of_teacher.path if (of_teacher.path / "zoo.json").exists() else None)
    by_folder = _requests(plan(loaded, finder).models)
    if out is not None and len(by_folder) > 1:
        raise InvalidInput(f"the blueprint has lessons in {len(by_folder)} folders, not in one")
    options = TrainOptions(find_devices(device)[0], data_dir=data_dir, precision=precision)
    written = []
    for name, (spec, epochs) in by_folder.items():
        with numerics(options):
            writer = LessonWriter(spec, of_teacher, (out or Path(name)).absolute(), options)
            written.append(writer.write(epochs, progress))
    return written


def check_lessons(
    folder: str | Path,
    zoo: Zoo | str | Path | None = None,
    *,
    steps: int = 2,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> list[LessonDrift]:
    """Compare the first steps of every epoch's lessons with the teacher anew.

    A drift shows where a version of a library augments or computes otherwise than that by which
    the lessons were written. Raises CorruptFile that names a damaged file; and as `write_lessons`.
    """
    of_teacher = Zoo(Path()) if zoo is None else Zoo.open(zoo)
    path = Path(folder).absolute()
    description = lesson_files.read_description(path)
    try:
        spec = ModelSpec.restore(description["spec"])
    except (VitariumError, KeyError, TypeError) as error:
        raise CorruptFile(path / lesson_files.DESCRIPTION, str(error)) from None
    precision = description["precision"]
    options = TrainOptions(find_devices(device)[0], data_dir=data_dir, precision=precision)
    with numerics(options):
        writer = LessonWriter(spec, of_teacher, path, options)
        writer.compare(description)
        epochs = lesson_files.stored_epochs(path)
        drifts = []
        for number, epoch in enumerate(epochs):
            progress.step("comparing epochs", number, len(epochs))
            drifts.append(writer.drift(epoch, steps, lesson_files.store_checksum(description)))
    return drifts


def _requests(specs: Sequence[ModelSpec]) -> dict[str, tuple[ModelSpec, int]]:
    """By folder, a model that learns its lessons, and for how many epochs at most."""
    requests: dict[str, tuple[ModelSpec, int]] = {}
    for spec in specs:
        config = spec.recipe.objective.config
        if not isinstance(config, StoredLessons):
            continue
        earlier, epochs = requests.setdefault(config.lessons, (spec, 0))
        for name, value in _asked_for(spec).items():
            other = _asked_for(earlier)[name]
            if value != other:
                raise InvalidInput(
                    f"{earlier.id} and {spec.id} have their lessons in {config.lessons}, but their "
                    f"{name} is {other} and {value}: give them a folder each"
                )
        requests[config.lessons] = earlier, max(epochs, spec.recipe.epochs)
    if not requests:
        raise InvalidInput("no model of the blueprint has `objective: stored_lessons`")
    return requests


def _asked_for(spec: ModelSpec) -> dict[str, Any]:
    config = spec.recipe.objective.config
    more = {
        "teacher": teacher_source(config, spec),
        "lessons_seed": config.lessons_seed,
        "top_k": config.top_k,
    }
    return image_factors(spec.recipe) | more
