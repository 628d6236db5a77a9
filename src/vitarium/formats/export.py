"""Write models of a zoo for other programs to read; formats are in `exporters/` and `hub/`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.errors import DiskFull, InvalidInput
from vitarium.core.file_faults import check_writable, writing
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Plugin, Section, choose
from vitarium.formats.base import Chosen
from vitarium.zoo import Zoo
from vitarium.zoo.listing import listing

_MAX_LISTED = 5
"""Models that an error names."""


@dataclass(frozen=True)
class Skipped:
    """A model was left out, since the format has no place for it."""

    model: Chosen
    reason: str


Listener = Callable[[Skipped], None]


def export(
    zoo: Zoo,
    out: str | Path,
    *,
    exporter: str,
    models: Sequence[str] | None = None,
    where: str = "",
    skip: bool = False,
    progress: Progress = SILENT,
    listener: Listener = lambda event: None,
    **settings: Any,
) -> list[Path]:
    """Write models of a zoo in another format.

    Everything is written beside `out` and renamed at the end: an interrupted export leaves nothing.

    Args:
        out: a folder that is new or empty.
        exporter: the format, see `vitarium plugins exporter`.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
            None: every finished model, after its last epoch.
        where: instead, finished models that fulfil an SQL condition, as `vitarium ls` has it.
        skip: leave out models for which the format has no place, instead of an error.
        progress: counts files and folders; the task is the name of the last one written.
        listener: is called for every model that is left out.
        settings: of the exporter.

    Returns what was written: a file or folder per model, and what the format has beside them.
    Raises UnknownName, InvalidConfig, and InvalidInput for a place that is taken, a library that is
    missing, and models for which the format has no place; CorruptFile for damaged weights;
    NotWritable, and DiskFull, after which nothing of the export is left.
    """
    section = choose("exporter", exporter, **settings)
    check_installed(section.plugin)
    target = Path(out).absolute()
    with writing(target):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise InvalidInput(f"{out} is there already; export into a new or an empty folder")
    picked = _fitting(section, zoo, chosen(zoo, models, where), skip, listener)
    check_writable(target.parent)
    beside = target.with_name(files.temporary_name(target))
    written = []
    with writing(target):
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            with files.plain_path(beside) as folder:  # libraries in other languages write there
                for path in section(zoo, picked, folder):
                    written.append(target / path.relative_to(folder))
                    total = max(len(written), len(picked))
                    progress.step(path.name, len(written), total)
            beside.replace(target)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, DiskFull):
                raise DiskFull(target) from None  # what it was of has gone
            raise
    return written


def chosen(zoo: Zoo, models: Sequence[str] | None = None, where: str = "") -> list[Chosen]:
    """The models that `export` would write, each once.

    Raises UnknownName, and InvalidInput where an epoch's weights are not kept, no model is
    finished, or the condition is no SQL.
    """
    if models is not None and where:
        raise InvalidInput("name models or give a condition (where), not both")
    if models is None:
        rows = listing(zoo.path, where=where).rows
        models = [row["model"] for row in rows if row["status"] == "finished"]
    if not models:
        which = f"finished model for which {where}" if where else "finished model to export"
        raise InvalidInput(f"{zoo.path} has no {which}")
    return list(dict.fromkeys(Chosen(*zoo.at(model)) for model in models))


def _fitting(
    section: Section, zoo: Zoo, models: list[Chosen], skip: bool, listener: Listener
) -> list[Chosen]:
    """The models for which the format has a place; all of them have to be those, or not."""
    refuses = section.plugin.facts["refuses"]
    reasons = {m: reason for m in models if (reason := refuses(section.config, zoo, m))}
    if reasons and (not skip or len(reasons) == len(models)):
        listed = [f"\n  {model.id}: {reason}" for model, reason in reasons.items()]
        more = [f"\n  and {len(listed) - _MAX_LISTED} more"] if len(listed) > _MAX_LISTED else []
        hint = "" if skip else "; leave them out with --skip, or choose a format that takes them"
        raise InvalidInput(
            f"{len(reasons)} of {len(models)} models cannot be exported to {section.name}"
            + hint
            + "".join(listed[:_MAX_LISTED] + more)
        )
    for model, reason in reasons.items():
        listener(Skipped(model, reason))
    return [model for model in models if model not in reasons]


def check_installed(plugin: Plugin) -> None:
    """Raises InvalidInput that says what to install where a library is missing."""
    missing = [name for name in plugin.facts["needs"] if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"{plugin.kind} '{plugin.name}' needs {', '.join(missing)}: "
            f"pip install '{plugin.facts['extra']}'"
        )
