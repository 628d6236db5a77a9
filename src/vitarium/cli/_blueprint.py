"""Blueprints as commands read them: checked against the zoo in which they are grown."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core.cache import remembered
from vitarium.core.filenames import file_name

if TYPE_CHECKING:
    from vitarium.blueprint import Blueprint, Plan
    from vitarium.core.terminal import Terminal
    from vitarium.engine.check import ModelCheck


def read_blueprint(
    source: str, zoo: Path | None, data_dir: Path | None = None
) -> "tuple[Blueprint, Path, ModelCheck]":
    """A blueprint, the folder of its zoo, and what checks its models; for `plan`.

    Raises InvalidConfig that lists every problem, UnknownName and InvalidInput.
    """
    from vitarium.blueprint import Blueprint
    from vitarium.engine.check import ModelCheck
    from vitarium.engine.parents import parents_in

    find = parents_in(zoo)
    loaded = Blueprint.load(source, find, ModelCheck(zoo, data_dir))
    folder = zoo or _default_zoo(loaded.name)
    return loaded, folder, ModelCheck(folder, data_dir)


def checked_blueprint(source: str, zoo: Path | None, data_dir: Path | None) -> dict[str, Any]:
    """Of a blueprint that passes its check, as JSON: what `vitarium blueprint check` shows of it.

    Remembered where it follows from the text and the zoo alone, so that it takes no torch again.
    Raises as `read_blueprint`; what is wrong is never remembered.
    """
    request = [str(path) for path in (Path.cwd(), source, zoo, data_dir)]
    name = hashlib.sha256(json.dumps(request).encode()).hexdigest()[:16]
    checked: dict[str, Any] = remembered(
        f"blueprint-{name}",
        lambda: _check(source, zoo, data_dir),
        stamps=lambda: _stamps(source, zoo),
        final=lambda value, before, after: value["final"] and before == after,
    )
    return checked


def _check(source: str, zoo: Path | None, data_dir: Path | None) -> dict[str, Any]:
    from vitarium.blueprint import plan
    from vitarium.engine.parents import parents_in

    loaded, folder, model_check = read_blueprint(source, zoo, data_dir)
    find = parents_in(folder if zoo or folder.exists() else None)
    planned = plan(loaded, find, model_check)
    return {
        "models": len(planned),
        "stages": planned.stages,
        "adapted": {stage: c for stage, c in model_check.adaptations.items() if c},
        "normalization": planned.normalizations,
        "waiting": dict(planned.waiting),
        "samples": loaded.samples,
        "final": not _reads_files(planned),
    }


def _reads_files(planned: "Plan") -> bool:
    """Whether a check reads files of data sets, teachers or checkpoints, which have no stamps."""
    from vitarium.data.expected import expected
    from vitarium.engine.teachers import teacher_of

    for spec in planned.models:
        teacher = teacher_of(spec)
        if spec.recipe.objective.facts.get("stored_outputs"):
            return True
        if None in expected(spec.recipe.data)[:2] or (teacher and not teacher.is_parent):
            return True
        if spec.recipe.evaluate_on:
            return True
        if spec.parent is not None and spec.parent not in planned:
            return True
    return False


def _stamps(source: str, zoo: Path | None) -> list[Any]:
    """What a check follows from: the text with what it extends, the zoo's models, libraries."""
    from vitarium.blueprint.blueprint import read_values
    from vitarium.core.errors import NotAZoo
    from vitarium.zoo import Zoo
    from vitarium.zoo._model_files import model_stamps

    values, _ = read_values(source)
    # repr, since a date is no text
    stamps: list[Any] = [hashlib.sha256(repr(values).encode(errors="backslashreplace")).hexdigest()]
    stamps += [version(library) for library in ("torch", "timm")]
    folder = zoo or _default_zoo(str(values.get("name")))
    try:
        stamps.append(model_stamps(Zoo.open(folder).path))
    except NotAZoo:
        stamps.append(None)
    return stamps


def _default_zoo(name: str) -> Path:
    return Path(file_name(f"{name}-zoo"))


def print_normalizations(console: "Terminal", by_stage: Mapping[str, list[str]]) -> None:
    """Say of every stage whose images are not normalized as its data set's how they are."""
    for stage, normalizations in by_stage.items():
        means = ", ".join(normalizations)
        console.print(f"{stage}: images are normalized by mean/std {means}, not the data set's")
