"""Blueprints as commands read them: checked against the zoo in which they are grown."""

from pathlib import Path
from typing import TYPE_CHECKING

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

    find = parents_in(zoo) if zoo else None
    loaded = Blueprint.load(source, find, ModelCheck(zoo, data_dir))
    folder = zoo or Path(file_name(f"{loaded.name}-zoo"))
    return loaded, folder, ModelCheck(folder, data_dir)


def print_normalizations(console: "Terminal", planned: "Plan") -> None:
    """Say of every stage whose images are not normalized as its data set's how they are."""
    for stage, normalizations in planned.normalizations.items():
        means = ", ".join(normalizations)
        console.print(f"{stage}: images are normalized by mean/std {means}, not the data set's")
