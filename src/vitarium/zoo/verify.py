"""Reads a zoo through and says what is damaged, what is lost by it, and what can be rebuilt."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import CorruptFile, FileFault
from vitarium.core.progress import SILENT, Progress
from vitarium.zoo import _index_tables, _ledger, annotations, records
from vitarium.zoo._lineage_faults import Fault, LineageFaults
from vitarium.zoo._model_faults import ModelFaults, Shapes, inside
from vitarium.zoo.checkpoint import PACKED, PLAIN, Checkpoint
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import FORMAT, MARKS, VERSIONS


def verify(zoo: Path, *, deep: bool = False, progress: Progress = SILENT) -> list[Fault]:
    """Compare everything in a zoo with its checksums, and with what else speaks of it.

    Finds every changed byte and every truncated or missing file of what the zoo keeps: the mark,
    models, epochs, records, results, checkpoints with their bases, progress files, blueprints, the
    index. What a killed process may leave behind (a half-written file, an epoch's checkpoint
    without its line) is no fault, and neither are a timeline, the traces of failures or what
    studies wrote.

    Args:
        deep: unpack every tensor too, and build every model; otherwise only stored bytes are read.
        progress: is told of each model.

    Returns the faults, those of a model together. The zoo is not changed. May run while it grows.
    """
    if newer := _newer_format(zoo):
        return [newer]
    faults = [*_mark(zoo), *_blueprints(zoo), *_stage_labels(zoo)]
    folders = [path for path in files.listed(zoo / "models") if path.is_dir()]
    shapes, lineage = Shapes(), LineageFaults(zoo)
    for done, folder in enumerate(folders):
        progress.step("models", done, len(folders))
        faults += ModelFaults(zoo, ModelFolder(folder), deep, shapes, lineage).faults()
    progress.step("models", len(folders), len(folders))
    for path, broken in broken_bases(folders, {zoo / each.path for each in faults}):
        if not lineage.add_checkpoint(broken, path):
            text, lost = f"it is whole, but builds on {inside(zoo, broken)}", "its weights, unless "
            faults.append(Fault(inside(zoo, path), text, f"{lost}that file is restored"))
    faults += [*lineage.faults(), *_removed(zoo)]
    lost = "measured numbers; remove it, and measure again"
    damaged = records.damaged(zoo)
    faults += [Fault(inside(zoo, file), "not as it was written", lost) for file in damaged]
    if not any(fault.path.startswith("models") for fault in faults):
        lost = "nothing; it is rebuilt when it is removed"
        faults += [Fault("index", text, lost) for text in _index_tables.disagreements(zoo)]
    return faults


def _mark(zoo: Path) -> Iterator[Fault]:
    file = zoo / "zoo.json"
    if not files.exists(file) or files.read(file) not in MARKS:
        fault = "not as it was written" if file.exists() else "it is missing"
        yield Fault(file.name, fault, f"nothing; write it again: {MARKS[-1].decode().strip()}")


def _newer_format(zoo: Path) -> Fault | None:
    """Of which nothing else can be said: what looks like a fault need not be one."""
    with suppress(CorruptFile, FileNotFoundError):
        mark = files.read_json(zoo / "zoo.json")
        version = mark.get("version") if isinstance(mark, dict) else None
        is_newer = type(version) is int and version > max(VERSIONS)
        if is_newer and mark == {"format": FORMAT, "version": version}:
            text = f"of version {version}; this version of vitarium reads {max(VERSIONS)}"
            return Fault("zoo.json", text, "nothing; verify it with a newer vitarium")
    return None


def _stage_labels(zoo: Path) -> Iterator[Fault]:
    try:
        annotations.stage_labels(zoo)
    except CorruptFile as error:
        yield Fault(annotations.STAGES, error.fault, "how stages are shown; remove the file")


def _removed(zoo: Path) -> Iterator[Fault]:
    """What is remembered of models that were removed."""
    for id in _ledger.ids(zoo):
        try:
            _ledger.check(zoo, id)
        except (CorruptFile, OSError) as error:
            fault = error.fault if isinstance(error, CorruptFile) else str(error)
            lost = f"what {id} was, which was removed; remove this folder, too"
            yield Fault(f"{_ledger.FOLDER}/{id}", fault, lost)


def _blueprints(zoo: Path) -> Iterator[Fault]:
    for file in files.listed(zoo / "blueprints"):
        digest = hashlib.sha256(files.read(file)).hexdigest()[:8]
        if not file.stem.endswith(f"-{digest}") and not files.is_leftover(file):
            lost = "the text of a blueprint; every model holds its own recipe"
            yield Fault(inside(zoo, file), "not as it was written", lost)


def broken_bases(folders: Sequence[Path], damaged: Collection[Path]) -> Iterator[tuple[Path, Path]]:
    """Whole packed checkpoints that build on what is damaged or missing, each with that file.

    `damaged` are files that are known to be damaged or missing.
    """

    @cache
    def base_of(path: Path) -> Path | None:
        if path.suffix == PLAIN:
            return None
        checkpoints = ModelFolder(path.parents[1]).checkpoints
        base = Checkpoint(path, checkpoints.find).base
        return checkpoints.path_of(base) if base else None

    def first_broken(path: Path) -> Path | None:
        """The first file on the chain of bases that cannot be read."""
        chain: list[Path] = []
        base: Path | None = path
        while base and base not in chain:  # a circle is a fault of each file in it
            try:
                if base in damaged or not files.exists(base):
                    return base
                chain.append(base)
                base = base_of(base)
            except (CorruptFile, OSError):
                return base
        return None

    paths: list[Path] = []
    for folder in folders:
        with suppress(FileFault):  # a fault of the model, which is reported already
            paths += files.listed(folder / "checkpoints")
    for path in sorted(path for path in paths if path.suffix == PACKED):
        broken = first_broken(path)
        if broken and broken != path and path not in damaged:
            yield path, broken
