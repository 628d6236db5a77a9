"""Finished models of a zoo, after their last epoch or every kept one, for lineage recovery."""

from collections.abc import Mapping
from typing import Any, Literal

from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.evaluation.checkpoints import targets
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.lineage.ground_truth import CheckpointRef
from vitarium.lineage.model_set import Report, silent
from vitarium.zoo import Zoo
from vitarium.zoo.checkpoint import MAX_DEPTH
from vitarium.zoo.listing import SCORES, listing

Epochs = Literal["last", "all"]
_RESERVED_FILES = 256
"""Files that the program may have open besides checkpoints."""
_NOT_FACTORS = ("model", "stage", "parent", "epochs", "before", "after", "status")


def load_zoo(
    zoo: Zoo, where: str, epochs: Epochs, report: Report = silent
) -> tuple[dict[str, Weights], dict[str, str], dict[str, CheckpointRef], dict[str, dict[str, Any]]]:
    """Models that fulfil a condition, as `vitarium ls` has it, in order of their names.

    Returns, by name: weights; why a model was left out; the checkpoint; and what is known of it
    for display. Raises InvalidInput.
    """
    rows = {str(row["model"]): row for row in listing(zoo.path, where=where).rows}
    chosen: list[CheckpointRef] = []
    left_out: dict[str, str] = {}
    for id in sorted(rows):
        try:
            if why := _reason_unusable(zoo, id):
                left_out[id] = why
            else:
                chosen += sorted(targets(zoo, [id], epochs))
        except CorruptFile as error:
            left_out[id] = str(error)
    _raise_file_limit(zoo, len(chosen))
    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    models: dict[str, Weights] = {}
    checkpoints: dict[str, CheckpointRef] = {}
    info: dict[str, dict[str, Any]] = {}
    for done, target in enumerate(chosen):
        report("opening models", done, len(chosen))
        name = target.model if epochs == "last" else str(target)
        try:
            weights = sources.weights(target)
        except CorruptFile as error:
            left_out[name] = str(error)
            continue
        weights.name = name
        models[name], checkpoints[name] = weights, target
        info[name] = _display_info(zoo, target, rows[target.model])
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


def _display_info(zoo: Zoo, target: CheckpointRef, row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = next(e.metrics for e in zoo.folder(target.model).epochs() if e.number == target.epoch)
    accuracy = next((metrics[name] for name in SCORES if metrics.get(name) is not None), None)
    factors = {
        name: value for name, value in row.items() if name not in _NOT_FACTORS and value is not None
    }
    return {
        "stage": row["stage"],
        "epoch": target.epoch,
        "accuracy": accuracy,
        "factors": factors,
    }


def _raise_file_limit(zoo: Zoo, count: int) -> None:
    """Let the program have as many files open as checkpoints need, and those that they build on.

    Most systems allow few (1,024) until a program asks for more.
    """
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
