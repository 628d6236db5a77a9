"""Write models of a zoo for other programs to read; formats are in `exporters/` and `hub/`."""

import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import DiskFull, InvalidInput
from vitarium.core.file_faults import check_writable, writing
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.reasons import by_reason
from vitarium.core.registry import Plugin, Section, choose
from vitarium.formats.base import Skipped
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames

_MAX_LISTED = 5  # models that an error names


Listener = Callable[[Skipped], None]


def export(
    zoo: Zoo | str | Path,
    exporter: str,
    *,
    out: str | Path,
    models: ModelNames | None = None,
    where: str = "",
    skip: bool = False,
    progress: Progress = SILENT,
    listener: Listener | None = None,
    **settings: Any,
) -> list[Path]:
    """Write models of a zoo in another format: beside `out`, renamed at the end, so that an
    interrupted export leaves nothing.

    Args:
        exporter: the format, see `vitarium plugins exporter`.
        out: a folder that is new or empty.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
            None: every finished model, after its last epoch.
        where: of these, only models that fulfill this condition, as `vitarium ls` has it.
        skip: leave out models for which the format has no place, instead of an error.
        progress: counts files and folders; the task is the name of the last one written.
        listener: is called for every model that is left out.

    Returns what was written: a file or folder per model, and what the format has beside them.
    Raises UnknownName, InvalidConfig, and InvalidInput for a place that is taken, a library that is
    missing, and models for which the format has no place; CorruptFile for damaged weights;
    NotWritable, and DiskFull, after which nothing of the export is left.
    """
    zoo, section = Zoo.open(zoo), choose("exporter", exporter, **settings)
    skipped: Listener = listener or (lambda event: None)
    check_installed(section.plugin)
    target = user_path(out).absolute()
    with writing(target):
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise InvalidInput(f"{out} is there already; export into a new or an empty folder")
    checkpoints = _accepted(section, zoo, exported(zoo, models, where), skip, skipped)
    check_writable(target.parent)
    beside = target.with_name(files.temporary_name(target))
    written = []
    with writing(target):
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            with files.plain_path(beside) as folder:  # libraries in other languages write there
                failed: dict[CheckpointRef, str] = {}
                for path in section(zoo, checkpoints, folder):
                    if isinstance(path, Skipped):
                        failed[path.checkpoint] = path.reason
                        _check_skipped(section.name, failed, len(checkpoints), skip)
                        skipped(path)
                        continue
                    written.append(target / path.relative_to(folder))
                    progress.step(path.name, len(written), max(len(written), len(checkpoints)))
            beside.replace(target)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, DiskFull):
                raise DiskFull(target) from None  # what it was of has gone
            raise
    return written


def exported(zoo: Zoo, models: ModelNames | None = None, where: str = "") -> list[CheckpointRef]:
    """The checkpoints that `export` would write, each once. Raises UnknownName, and InvalidInput
    where an epoch's weights are not kept, no model is finished, or the condition is no SQL."""
    names = select(zoo, models, where)
    if models is None:
        names = [name for name in names if zoo.folder(name).status == "finished"]
    if not names:
        which = f"finished model for which {where}" if where else "finished model to export"
        raise InvalidInput(f"{zoo.path} has no {which}")
    return list(dict.fromkeys(map(zoo.at, names)))


def _accepted(
    section: Section,
    zoo: Zoo,
    checkpoints: list[CheckpointRef],
    skip: bool,
    skipped: Listener,
) -> list[CheckpointRef]:
    refuses = section.plugin.facts["refuses"]
    reasons = {c: reason for c in checkpoints if (reason := refuses(section.config, zoo, c))}
    _check_skipped(section.name, reasons, len(checkpoints), skip)
    for checkpoint, reason in reasons.items():
        skipped(Skipped(checkpoint, reason))
    return [checkpoint for checkpoint in checkpoints if checkpoint not in reasons]


def _check_skipped(
    exporter: str, reasons: Mapping[CheckpointRef, str], count: int, skip: bool
) -> None:
    """Raises InvalidInput where models may not be left out, or none of the `count` is left."""
    if not reasons or (skip and len(reasons) < count):
        return
    lines = [f"  {line}" for line in by_reason((c.model, text) for c, text in reasons.items())]
    if len(lines) > _MAX_LISTED:
        lines[_MAX_LISTED:] = [f"  and {len(lines) - _MAX_LISTED} more"]
    what = f"{len(reasons)} of {count} models cannot be exported to {exporter}"
    hint = "" if skip else f"; leave them out, {parameter('skip', True)}, or choose another format"
    raise InvalidInput("\n".join([what + hint, *lines]))


def check_installed(plugin: Plugin) -> None:
    """Raises InvalidInput that says what to install where a library is missing."""
    missing = [name for name in plugin.facts["needs"] if find_spec(name) is None]
    if missing:
        what = f"{plugin.kind} '{plugin.name}' needs {', '.join(missing)}"
        raise InvalidInput(f"{what}: pip install '{plugin.facts['extra']}'")
