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
from vitarium.core.registry import Plugin, Section, choose
from vitarium.formats.base import Chosen
from vitarium.zoo import Zoo
from vitarium.zoo.listing import listing

_SHOWN = 5


@dataclass(frozen=True)
class Exported:
    """The `done`th file or folder of an export of `models` is done; `path` is where it will be."""

    path: Path
    done: int
    models: int


@dataclass(frozen=True)
class Skipped:
    """A model was left out, for which the format has no place."""

    model: Chosen
    why: str


Report = Callable[[Exported | Skipped], None]


def export(
    zoo: Zoo,
    out: str | Path,
    *,
    exporter: str,
    models: Sequence[str] | None = None,
    where: str = "",
    skip: bool = False,
    report: Report = lambda event: None,
    **settings: Any,
) -> list[Path]:
    """Write models of a zoo in another format.

    All is written beside `out` and renamed in the end: stopped at any moment, it leaves nothing.

    Args:
        out: a folder that is new or empty.
        exporter: the format, see `vitarium plugins exporter`.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
            None: every finished model, after its last epoch.
        where: instead, finished models that fulfil an SQL condition, as `vitarium ls` has it.
        skip: leave out models for which the format has no place, instead of an error.
        report: is told of every file or folder that is done, and of every model that is left out.
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
    picked = _fitting(section, zoo, chosen(zoo, models, where), skip, report)
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
                    report(Exported(written[-1], len(written), len(picked)))
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
    section: Section, zoo: Zoo, models: list[Chosen], skip: bool, report: Report
) -> list[Chosen]:
    """The models for which the format has a place; all of them have to be those, or not."""
    refuses = section.plugin.facts["refuses"]
    refused = {one: why for one in models if (why := refuses(section.config, zoo, one))}
    if refused and (not skip or len(refused) == len(models)):
        listed = [f"\n  {one.id}: {why}" for one, why in refused.items()]
        more = [f"\n  and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
        hint = "" if skip else "; leave them out with --skip, or choose a format that takes them"
        raise InvalidInput(
            f"{len(refused)} of {len(models)} models cannot be exported to {section.name}"
            + hint
            + "".join(listed[:_SHOWN] + more)
        )
    for one, why in refused.items():
        report(Skipped(one, why))
    return [one for one in models if one not in refused]


def check_installed(plugin: Plugin) -> None:
    """Raises InvalidInput that says what to install where a library is missing."""
    missing = [name for name in plugin.facts["needs"] if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"{plugin.kind} '{plugin.name}' needs {', '.join(missing)}: "
            f"pip install '{plugin.facts['extra']}'"
        )
