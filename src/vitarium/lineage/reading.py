"""Read models whose lineage is asked for: of a zoo, or of a folder of plain files of anyone.

What cannot be read is left out and said; what cannot be compared comes into different heaps.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.core.file_faults import reading
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.scope import in_scope
from vitarium.lineage.files.parent_tables import table_in
from vitarium.lineage.files.plain_files import SUFFIXES, models_in
from vitarium.lineage.ground_truth import Truth, origins_in, true_parents
from vitarium.lineage.model_set import Heap, Report, silent
from vitarium.lineage.zoo_models import Epochs, models_of
from vitarium.zoo import Zoo

LEAST_COMMON = 0.5
"""Models are compared with each other where at least this share of the numbers of each, heads left
out, stands in tensors that all of them have."""

_SHOWN = 5
Signature = frozenset[tuple[str, tuple[int, ...]]]
"""Names and shapes of a model's tensors."""


@dataclass(frozen=True)
class Found:
    """What was read, by models' names: ids of a zoo, `ID@EPOCH` for all epochs, or files' paths.

    Args:
        heaps: models that can be compared, the largest heap first; a model that is like no other
            is a heap of its own. In a heap, models stand in order of their names.
        shared: of every heap, the share of numbers that is compared: of those of its largest
            model, heads left out. 1 where all have the same tensors.
        left_out: why a model or file was not read.
        truth: every model's true parents among those that were read; None where nobody knows.
        info: what is known of a model, to be shown; methods never see it: stage, epoch, accuracy,
            and the factors that differ; of files, the file, and the rest if `models.csv` has it.
    """

    heaps: Sequence[Heap]
    shared: Sequence[float]
    left_out: Mapping[str, str]
    truth: Truth | None
    info: Mapping[str, Mapping[str, Any]]

    @property
    def models(self) -> list[str]:
        """Names of all models, heap after heap."""
        return list(chain.from_iterable(heap.names for heap in self.heaps))


def read(
    source: Zoo | str | Path,
    *,
    where: str = "",
    epochs: Epochs = "last",
    report: Report = silent,
) -> Found:
    """Open the models of a zoo, or of all files of weights in a folder; tensors are read later.

        read("demo-zoo", where="stage = 'finetune'")
        read("downloads")

    Files are `.safetensors`, or pickles of state dicts (`.pt`, `.pth`, `.bin`, `.ckpt`) of which
    nothing is run. What a model was wrapped in (`module.`, `model.`, ...) is no part of names, and
    Hugging Face's names of a ViT's tensors become timm's. Who descends from whom is told by a
    table in the folder, `lineage.csv` or `models.csv` (see `parent_tables`); none is needed.

    Args:
        where: of a zoo, only models that fulfil this condition, as `vitarium ls` has it.
        epochs: of a zoo, a model after its last epoch that is kept, or every kept epoch as one.

    Raises InvalidInput for fewer than two models, and for a bad table; NotAZoo, NotReadable.
    """
    if isinstance(source, Zoo) or files.exists(Path(source) / "zoo.json"):
        zoo = source if isinstance(source, Zoo) else Zoo.open(source)
        path = zoo.path
        models, left_out, places, info = models_of(zoo, where, epochs, report)
        usable = _usable(models, left_out)
        truth: Truth | None = true_parents({n: places[n] for n in usable}, origins_in(zoo))
    else:
        path = Path(source)
        if where or epochs != "last":
            raise InvalidInput(f"{path} is not a zoo: conditions and epochs are for zoos")
        usable, left_out, truth, info = _of_folder(path, report)
    if len(usable) < 2:
        raise InvalidInput(_too_few(path, list(usable), left_out, where))
    heaps, shared = split(list(usable.values()), report)
    return Found(heaps, shared, left_out, truth, {name: info[name] for name in usable})


def fault(weights: Weights, tensors: Sequence[str]) -> str | None:
    """Which of the tensors is the first with an entry that is NaN or infinite; None: none is."""
    for name in tensors:
        tensor = weights[name]
        if not torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float()).all():
            return f"{name} has entries that are not finite"
    return None


def split(models: Sequence[Weights], report: Report = silent) -> tuple[list[Heap], list[float]]:
    """Heaps of models that can be compared, and the share of numbers that is: see `Found`.

    Models with the same tensors are a group. Beginning with the largest, each group joins the heap
    with which it has most in common, if that leaves `LEAST_COMMON` of every model of the heap.
    """
    groups: dict[Signature, list[Weights]] = defaultdict(list)
    for model in models:
        groups[signature(model)].append(model)
    order = sorted(groups, key=lambda s: (-len(groups[s]), -_numbers(s), sorted(s)))
    joined: list[_Joined] = []
    for own in order:
        left = [heap.left_by(own) for heap in joined]
        best = max(left, default=0.0)
        if best < LEAST_COMMON:
            joined.append(_Joined(own, _numbers(own), []))
        heap = joined[left.index(best)] if best >= LEAST_COMMON else joined[-1]
        heap.common &= own
        heap.largest = max(heap.largest, _numbers(own))
        heap.models += groups[own]
    found = []
    for heap in joined:
        members = sorted(heap.models, key=lambda model: model.name)
        tensors = sorted((name for name, _ in heap.common), key=_natural)
        found.append((Heap(members, tensors, report), _numbers(heap.common) / heap.largest))
    found.sort(key=lambda heap: (-len(heap[0]), heap[0].names[0]))
    return [heap for heap, _ in found], [share for _, share in found]


def signature(model: Weights) -> Signature:
    """Names and shapes of a model's tensors of real numbers, its head's left out."""

    def look() -> Signature:
        shapes = model.shapes
        names = in_scope(model, "trunk")
        return frozenset((name, shapes[name]) for name in names if math.prod(shapes[name]))

    return model.remember("signature", look)


@dataclass
class _Joined:
    """Groups of models that are compared with each other."""

    common: Signature
    largest: int
    models: list[Weights]

    def left_by(self, other: Signature) -> float:
        """The share that would be compared if another group joined."""
        return _numbers(self.common & other) / max(self.largest, _numbers(other))


def _natural(name: str) -> list[tuple[int, str]]:
    """So that block 2 stands before block 10; the order is no model's own, so sums have none."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _numbers(own: Signature) -> int:
    return sum(math.prod(shape) for _, shape in own)


def _usable(models: Mapping[str, Weights], left_out: dict[str, str]) -> dict[str, Weights]:
    """Models that have anything to compare."""
    found = {}
    for name, model in models.items():
        if signature(model):
            found[name] = model
        else:
            left_out[name] = "it has no tensors of real numbers" + (
                " but those of a head" if model.shapes else ""
            )
    return found


def _of_folder(
    folder: Path, report: Report
) -> tuple[dict[str, Weights], dict[str, str], Truth | None, dict[str, dict[str, Any]]]:
    if not folder.is_dir():
        what = "is a file; name the folder that it is in" if folder.exists() else "is not there"
        raise InvalidInput(f"{folder} {what}")
    files.listed(folder)
    with reading(folder):
        models, left_out, paths_by_name = models_in(folder, report)
    if not paths_by_name:
        raise InvalidInput(
            f"{folder} is neither a zoo (it has no zoo.json) nor a folder with files of weights "
            f"({', '.join(SUFFIXES)})"
        )
    usable = _usable(models, left_out)
    paths = {name: paths_by_name[name].relative_to(folder).as_posix() for name in usable}
    info: dict[str, dict[str, Any]] = {name: {"file": path} for name, path in paths.items()}
    table = table_in(folder, paths_by_name, list(usable))
    if table is None:
        return usable, left_out, None, info
    info = {name: own | table.about.get(paths[name], {}) for name, own in info.items()}
    truth = true_parents({n: table.places[p] for n, p in paths.items()}, table.origins)
    return usable, left_out, truth, info


def _too_few(path: Path, found: Sequence[str], left_out: Mapping[str, str], where: str) -> str:
    which = f"for which {where} " if where else ""
    has = f"one, {found[0]}" if found else "none"
    text = f"{path}: lineage needs two models or more {which}and there is {has}"
    refused = [f"\n  {name} was left out: {why}" for name, why in left_out.items()]
    more = [f"\n  and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
    return text + "".join(refused[:_SHOWN] + more)
