"""Finished models of a zoo, after their last epoch or every kept one, for lineage recovery."""

from typing import Any, Literal

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.progress import Progress
from vitarium.evaluation.checkpoints import targets
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.zoo import Zoo
from vitarium.zoo.checkpoint import MAX_DEPTH
from vitarium.zoo.listing import SCORES, listing

Epochs = Literal["last", "all"]
_RESERVED_FILES = 256
"""Files that the program may have open besides checkpoints."""
_NOT_FACTORS = ("model", "stage", "parent", "epochs", "before", "after", "status")


def load_zoo(
    zoo: Zoo, where: str, epochs: Epochs, progress: Progress
) -> tuple[dict[str, Weights], dict[str, str], dict[str, CheckpointRef], dict[str, dict[str, Any]]]:
    """Models that fulfil a condition, as `vitarium ls` has it, in order of their names. Returns, by
    name: weights; why a model was left out; the checkpoint; and what is known of it for display.
    Raises InvalidInput."""
    rows = {str(row["model"]): row for row in listing(zoo.path, where=where).rows}
    chosen, left_out = [], {}
    for id in sorted(rows):
        try:
            if why := _reason_unusable(zoo, id):
                left_out[id] = why
            else:
                chosen += sorted(targets(zoo, [id], epochs))
        except CorruptFile as error:
            left_out[id] = str(error)
    _raise_file_limit(zoo, len(chosen))
    loader = ModelLoader(zoo)
    models, checkpoints, info = {}, {}, {}
    for done, target in enumerate(chosen):
        progress.step("opening models", done, len(chosen))
        id, epoch = target.model, target.epoch
        checkpoint = CheckpointRef(id, epoch)
        name = id if epochs == "last" else str(checkpoint)
        try:
            models[name] = loader.weights(target)
        except CorruptFile as error:
            left_out[name] = str(error)
            continue
        models[name].name = name
        checkpoints[name] = checkpoint
        metrics = next(e.metrics for e in zoo.folder(id).epochs() if e.number == epoch)
        row = rows[id]
        info[name] = {
            "stage": row["stage"],
            "epoch": epoch,
            "accuracy": next((metrics[s] for s in SCORES if metrics.get(s) is not None), None),
            "factors": {k: v for k, v in row.items() if k not in _NOT_FACTORS and v is not None},
        }
    return models, left_out, checkpoints, info


def _reason_unusable(zoo: Zoo, id: str) -> str | None:
    """Why nothing is read of a model."""
    folder = zoo.folder(id)
    result = folder.result()
    if result is None:
        return "its training has not ended"
    if result["status"] != "finished":
        return f"it {result['status']}" + (f": {result['message']}" if result["message"] else "")
    if not any(epoch.checkpoint for epoch in folder.epochs()):
        return "no weights of it are kept"
    return None


def _raise_file_limit(zoo: Zoo, count: int) -> None:
    """Let the program have as many files open as checkpoints need, and those that they build on.
    Most systems allow few (1,024) until a program asks for more."""
    try:
        import resource
    except ImportError:  # not on POSIX, where alone there is such a limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = float("inf") if hard == resource.RLIM_INFINITY else hard
    needed = _RESERVED_FILES + count * (1 + MAX_DEPTH)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(min(needed, ceiling)), hard))
    if ceiling < _RESERVED_FILES + count:
        raise InvalidInput(
            f"{zoo.path}: {count} checkpoints are to be read, and this system lets a program open "
            f"{hard} files: choose fewer (where), or raise the limit (`ulimit -Hn`)"
        )
