"""Load the models of a zoo, or of any folder of weight files, as sets that can be compared.

What cannot be read is left out and reported; models that cannot be compared are in different sets.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.file_faults import reading
from vitarium.core.filenames import user_path
from vitarium.core.progress import SILENT, Progress
from vitarium.core.weight_suffixes import SUFFIXES
from vitarium.evaluation.checkpoints import targets
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.scope import in_scope
from vitarium.lineage.base import ModelSet
from vitarium.lineage.files.parent_tables import find_parent_table
from vitarium.lineage.files.weight_files import load_folder
from vitarium.lineage.ground_truth import Truth, true_parents, zoo_origins
from vitarium.zoo import Zoo
from vitarium.zoo.checkpoint import MAX_DEPTH
from vitarium.zoo.listing import SCORES, listing
from vitarium.zoo.model import ModelNames, names_of

MIN_COMMON_SHARE = 0.5
"""Models are compared with each other where at least this share of the numbers of each, heads left
out, stands in tensors that all of them have."""

_MAX_LISTED = 5
Epochs = Literal["last", "all"]
_RESERVED_FILES = 256  # files that the program may have open besides checkpoints
_NOT_FACTORS = ("model", "stage", "parent", "epochs", "before", "after", "status")
Signature = frozenset[tuple[str, tuple[int, ...]]]  # names and shapes of a model's tensors


@dataclass(frozen=True)
class LoadedModels:
    """Loaded models by name: ids of a zoo, `ID@EPOCH` for all epochs, or files' paths."""

    model_sets: Sequence[ModelSet]
    """Models that can be compared, by name; the largest set first, which may be a single model."""
    shared: Sequence[float]
    """Of every set, the share of its largest model's numbers that is compared, heads left out."""
    left_out: Mapping[str, str]  # why a model or file was not read
    truth: Truth | None
    """True parents among those that were read; None where nobody knows any."""
    info: Mapping[str, Mapping[str, Any]]
    """To be shown, methods never see it: stage, epoch, accuracy, and the factors that differ; of
    files, the file, and the rest if `models.csv` has it."""

    @property
    def models(self) -> list[str]:
        return [name for model_set in self.model_sets for name in model_set.names]


def load(
    source: Zoo | str | Path,
    *,
    models: ModelNames | None = None,
    where: str = "",
    epochs: Epochs = "last",
    progress: Progress = SILENT,
) -> LoadedModels:
    """Load the models of a zoo, or of all weight files in a folder; tensors are read later.

    Files are `.safetensors`, or pickles of state dicts (`.pt`, `.pth`, `.pth.tar`, `.bin`, `.ckpt`)
    of which nothing is run; what is neither these nor a document is named as left out. What a model
    was wrapped in (`module.`, `model.`, ...) is no part of names, and Hugging Face's names of a
    ViT's tensors become timm's. Who descends from whom is told by a table in the folder,
    `lineage.csv` or `models.csv` (see `parent_tables`); none is needed.

    Args:
        models: of a zoo, only these, by their ids or beginnings of them; None: all.
        where: of a zoo, only models that fulfill this condition, as `vitarium ls` has it.
        epochs: of a zoo, a model after its last epoch that is kept, or every kept epoch as one.

    Raises InvalidInput for fewer than two models, and for a bad table; NotAZoo, NotReadable.
    """
    truth: Truth | None
    if isinstance(source, Zoo) or files.exists(user_path(source) / "zoo.json"):
        zoo = Zoo.open(source)
        path = zoo.path
        ids = None if models is None else [zoo.find(model) for model in names_of(models)]
        rows = listing(path, models=ids, where=where).rows
        loaded, left_out, checkpoints, info = _load_zoo(zoo, rows, epochs, progress)
        usable = _usable(loaded, left_out)
        # of a zoo of imported models that name no parents nothing is known
        truth = true_parents({n: checkpoints[n] for n in usable}, zoo_origins(zoo)) or None
    else:
        path = user_path(source)
        if models is not None or where or epochs != "last":
            raise InvalidInput(f"{path} is not a zoo: models, conditions, epochs are for zoos")
        usable, left_out, truth, info = _load_folder(path, progress)
    if len(usable) < 2:
        which = f"for which {where} " if where else ""
        has = f"one, {next(iter(usable))}" if usable else "none"
        lines = [f"\n  {name} was left out: {why}" for name, why in left_out.items()]
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = [f"\n  and {len(lines) - _MAX_LISTED} more"]
        what = f"lineage needs two models or more {which}and there is {has}"
        raise InvalidInput(f"{path}: {what}{''.join(lines)}")
    model_sets, shared = split_by_tensors(list(usable.values()), progress)
    return LoadedModels(model_sets, shared, left_out, truth, {name: info[name] for name in usable})


def first_non_finite(weights: Weights, tensors: Sequence[str]) -> str | None:
    """A message that names the first tensor with an entry that is NaN or infinite, else None."""
    for name in tensors:
        tensor = weights[name]
        if not torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float()).all():
            return f"{name} has entries that are not finite"
    return None


def split_by_tensors(
    models: Sequence[Weights], progress: Progress = SILENT
) -> tuple[list[ModelSet], list[float]]:
    """Sets of models that can be compared, and the share of numbers that is: see `LoadedModels`.
    Models with the same tensors are a group. Beginning with the largest, each group joins the set
    with which it has most in common, if that leaves MIN_COMMON_SHARE of every model of the set."""
    groups: dict[Signature, list[Weights]] = defaultdict(list)
    for model in models:
        groups[signature(model)].append(model)
    joined: list[list[Signature]] = []
    for shapes in sorted(groups, key=lambda s: (-len(groups[s]), -_num_weights(s), sorted(s))):
        best = max(joined, key=lambda signatures: _common_share(*signatures, shapes), default=None)
        if best is None or _common_share(*best, shapes) < MIN_COMMON_SHARE:
            best = []
            joined.append(best)
        best.append(shapes)
    sets = []
    for signatures in joined:
        members = [model for shapes in signatures for model in groups[shapes]]
        # block 2 before block 10; no model's own order, on which sums would depend
        tensors = sorted(
            (name for name, _ in frozenset.intersection(*signatures)),
            key=lambda n: [(int(p), "") if p.isdecimal() else (-1, p) for p in n.split(".")],
        )
        model_set = ModelSet(sorted(members, key=lambda m: m.name), tensors, progress)
        sets.append((model_set, _common_share(*signatures)))
    sets.sort(key=lambda pair: (-len(pair[0]), pair[0].names[0]))
    return [model_set for model_set, _ in sets], [share for _, share in sets]


def _common_share(*signatures: Signature) -> float:
    """See `LoadedModels.shared`."""
    common = frozenset.intersection(*signatures)
    return _num_weights(common) / max(map(_num_weights, signatures))


def signature(model: Weights) -> Signature:
    """Names and shapes of a model's tensors of real numbers, its head's left out."""

    def look() -> Signature:
        shapes, names = model.shapes, in_scope(model, "trunk")
        return frozenset((name, shapes[name]) for name in names if math.prod(shapes[name]))

    return model.remember("signature", look)


def _num_weights(shapes: Signature) -> int:
    return sum(math.prod(shape) for _, shape in shapes)


def _usable(models: Mapping[str, Weights], left_out: dict[str, str]) -> dict[str, Weights]:
    """Models that have anything to compare."""
    for name, model in models.items():
        if not signature(model):
            more = " but those of a head" if model.shapes else ""
            left_out[name] = f"it has no tensors of real numbers{more}"
    return {name: model for name, model in models.items() if name not in left_out}


def _load_zoo(
    zoo: Zoo, listed: Sequence[Mapping[str, Any]], epochs: Epochs, progress: Progress
) -> tuple[dict[str, Weights], dict[str, str], dict[str, CheckpointRef], dict[str, dict[str, Any]]]:
    """By name, sorted: weights; why a model was left out; checkpoints; and `LoadedModels.info`."""
    rows = {str(row["model"]): row for row in listed}
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
    for done, checkpoint in enumerate(chosen):
        progress.step("opening models", done, len(chosen))
        id, epoch = checkpoint
        name = id if epochs == "last" else str(checkpoint)
        try:
            models[name] = loader.weights(checkpoint)
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


def _load_folder(
    folder: Path, progress: Progress
) -> tuple[dict[str, Weights], dict[str, str], Truth | None, dict[str, dict[str, Any]]]:
    if not folder.is_dir():
        what = "is a file; name the folder that it is in" if folder.exists() else "is not there"
        raise InvalidInput(f"{folder} {what}")
    files.listed(folder)
    with reading(folder):
        models, left_out, paths_by_name = load_folder(folder, progress)
        usable = _usable(models, left_out)
        table = find_parent_table(folder, paths_by_name, list(usable))
    if not paths_by_name:
        what = "neither a zoo (it has no zoo.json) nor a folder with files of weights"
        raise InvalidInput(f"{folder} is {what} ({', '.join(SUFFIXES)})")
    paths = {name: paths_by_name[name].relative_to(folder).as_posix() for name in usable}
    info: dict[str, dict[str, Any]] = {name: {"file": path} for name, path in paths.items()}
    if table is None:
        return usable, left_out, None, info
    for name, path in paths.items():
        info[name] |= table.info.get(path, {})
    truth = true_parents(
        {n: table.checkpoints[p] for n, p in paths.items()},
        lambda model: table.parents.get(model, ()),
    )
    return usable, left_out, truth, info
