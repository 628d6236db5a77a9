"""What is remembered of models and checkpoints that were removed: what they were, which bits.

    removed/<id>/
      model.json     as it was
      epochs.jsonl   as it was, with the content of every checkpoint that there ever was

So models that come of them are whole without them, and one that is grown again can be compared
with what it was.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.zoo import _model_files as model_files
from vitarium.zoo._model_files import Epoch

FOLDER = "removed"
OTHER_WEIGHTS = "not the weights that it had before it was removed"


def remember(zoo: Path, id: str, *, source: Path | None = None) -> None:
    """Write down what model `id` is, and what its checkpoints hold.

    Args:
        source: its folder, if that is in another zoo.

    Raises CorruptFile, DiskFull, NotWritable and LeadsOutside.
    """
    folder, entry = source or zoo / "models" / id, zoo / FOLDER / id
    remembered = contents(zoo, id)
    epochs = [
        replace(
            epoch,
            checkpoint=epoch.checkpoint or remembered.get(epoch.number),
            progress=None,
            companions=None,
        )
        for epoch in model_files.read_lines(folder, "epochs.jsonl", Epoch)
    ]
    files.write(entry / "model.json", files.read(folder / "model.json"), root=zoo)
    files.write_lines(entry / "epochs.jsonl", [epoch.line() for epoch in epochs], root=zoo)


def contents(zoo: Path, id: str) -> dict[int, str]:
    """What the checkpoints of a removed model held, by epoch; nothing where that is damaged."""
    try:
        epochs = check(zoo, id)
    except (CorruptFile, FileNotFoundError):  # or only a part of it is there yet
        return {}
    return {epoch.number: epoch.checkpoint for epoch in epochs if epoch.checkpoint}


def check(zoo: Path, id: str) -> list[Epoch]:
    """The epochs of a removed model. Raises CorruptFile, and FileNotFoundError for no such one."""
    entry = zoo / FOLDER / id
    model_files.read_description(entry)
    return model_files.read_lines(entry, "epochs.jsonl", Epoch)


def difference(zoo: Path, id: str, epochs: Iterable[Epoch]) -> str:
    """In which epochs a model that is here again has other weights than before, or ""."""
    before = contents(zoo, id)
    differing = [e.number for e in epochs if e.checkpoint and before.get(e.number) != e.checkpoint]
    differing = [number for number in differing if number in before]
    if not differing:
        return ""
    numbers = model_files.ranges(differing)
    return f"{OTHER_WEIGHTS} (epochs {numbers})"


def ids(zoo: Path) -> list[str]:
    """The models of which something was removed."""
    entries = files.listed(zoo / FOLDER)
    return [entry.name for entry in entries if files.exists(entry / "model.json")]


def forget(zoo: Path, id: str) -> None:
    """Raises LeadsOutside."""
    files.discard(zoo / FOLDER / id, root=zoo)
