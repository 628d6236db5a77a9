"""Brings models to workers that do not see the zoo's folder, and their files back.

What is sent back after an epoch is ordered as `zoo.model_folder` writes it: whatever a line of
epochs.jsonl speaks of before that line, and result.json last. So an epoch arrives whole or not at
all: a worker that is lost costs the running epoch, and those that were still on their way.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from vitarium.blueprint import CheckpointRef, ModelSpec
from vitarium.core import files
from vitarium.core.errors import WriteFault
from vitarium.core.scratch import temporary_folder
from vitarium.engine.events import Ended, EpochEnded, Event
from vitarium.engine.kept_companions import needs_companions
from vitarium.engine.teachers import in_zoo, needs_teachers_companions, teacher_files, teacher_of
from vitarium.engine.worker import Job, Message, run_job
from vitarium.zoo import Zoo
from vitarium.zoo._format import packing

Goods = Mapping[str, bytes]
"""Content of files by their path inside the zoo."""

_ORDER = {"model.json": 0, "epochs.jsonl": 2, "result.json": 3}


class FileSent(NamedTuple):
    """A file that a worker wrote, or (content None) removed; `path` is inside the zoo."""

    path: str
    content: bytes | None


Send = Callable[[Message | FileSent], None]


def pack(zoo: Zoo, specs: Iterable[ModelSpec]) -> Goods:
    """What the models' training reads from the zoo: where they stand, the weights that they start
    from, those that their next checkpoints build on, and their teachers.

    Raises CorruptFile and InvalidInput where some of these weights are not whole, or not there.
    """
    goods: dict[str, bytes] = {}
    for spec in specs:
        student = zoo.folder(spec.id)
        needed = [file for file in student.path.glob("*.*") if file.suffix != ".tmp"]
        checkpoints: set[CheckpointRef] = set()
        if spec.parent:
            checkpoints.add(CheckpointRef(spec.parent, spec.parent_epoch or 0))
        with_companions = {spec.parent} if spec.parent and needs_companions(spec, zoo) else set()
        teacher = teacher_of(spec)
        if teacher and teacher.is_path:
            paths = teacher_files(teacher, zoo)
            goods |= {path: file.read_bytes() for path, file in paths.items()}
        elif teacher:
            checkpoints.add(ref := in_zoo(teacher, spec, zoo))
            with_companions |= {ref.model} if needs_teachers_companions(spec) else set()
            result = zoo.folder(ref.model).path / "result.json"
            needed += [result] if result.exists() else []
        for model in with_companions:
            if companions := zoo.folder(model).companions():
                companions.check_stored()
                needed.append(companions.path)
        if student.exists:  # then the next checkpoints build on those that are there
            checkpoints |= set(student.bases(len(student.epochs())))
        for model, epoch in checkpoints:
            folder = zoo.folder(model)
            needed += [folder.path / "model.json", folder.path / "epochs.jsonl"]
            # as a plain file, whatever it is here: what it builds on itself stays at home
            plain, checkpoint = folder.checkpoints.plain(epoch), folder.open(epoch)
            if checkpoint.is_sealed:
                pieces, _ = packing.plain(checkpoint.state_dict(), folder.checkpoints.notes(epoch))
                content = b"".join(pieces)
            else:  # of format 1: known by the SHA-256 of just these bytes
                content = checkpoint.path.read_bytes()
            goods[plain.relative_to(zoo.path).as_posix()] = content
        for file in needed:
            goods[file.relative_to(zoo.path).as_posix()] = file.read_bytes()
    return goods


def unload(sent: FileSent, zoo: Zoo) -> None:
    """Do in the zoo what the worker did in its own. Raises LeadsOutside."""
    path = zoo.path / sent.path
    files.check_inside(path.parent, zoo.path)
    if sent.content is None:
        files.discard(path)
    else:
        files.write(path, sent.content)


def run_shipped(job: Job, goods: Goods, send: Send) -> None:
    """As `run_job`, in a temporary zoo; sends every file that a finished epoch has changed."""
    with temporary_folder() as folder:
        zoo = Zoo.create(folder / "zoo")
        for path, content in goods.items():
            unload(FileSent(path, content), zoo)
        changes = {spec["id"]: _Changes(zoo, spec["id"]) for spec in job.specs}

        def emit(event: Event) -> None:
            if isinstance(event, EpochEnded | Ended):
                changes[event.model].send_since_last(send)
            send(event)

        try:
            run_job(job._replace(zoo=str(zoo.path)), emit)
        except WriteFault as error:  # of this machine's temporary folder, and not of the zoo
            raise RuntimeError(str(error)) from None


class _Changes:
    """Follows the files of one model."""

    def __init__(self, zoo: Zoo, model: str) -> None:
        self.zoo, self.folder = zoo, zoo.folder(model).path
        self._state = self._look()

    def send_since_last(self, send: Send) -> None:
        """New and changed files in the order in which they may be written, then removed ones."""
        before, self._state = self._state, self._look()
        changed = [file for file, state in self._state.items() if before.get(file) != state]
        changed.sort(key=lambda file: (_ORDER.get(file.name, 1), file))
        for file in [*changed, *(before.keys() - self._state.keys())]:
            content = file.read_bytes() if file in self._state else None
            send(FileSent(file.relative_to(self.zoo.path).as_posix(), content))

    def _look(self) -> dict[Path, tuple[int, int]]:
        """The inode tells, too: a file is replaced by one that is written beside it."""
        stats = [(file, file.stat()) for file in self.folder.rglob("*") if file.is_file()]
        return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in stats}
