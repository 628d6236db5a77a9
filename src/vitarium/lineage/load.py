"""Load the models of a zoo, or of any folder of weight files, as sets that can be compared.

What cannot be read is left out and reported; models that cannot be compared are in different sets.
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
from vitarium.lineage._zoo_models import Epochs, load_zoo
from vitarium.lineage.files.parent_tables import find_parent_table
from vitarium.lineage.files.weight_files import SUFFIXES, load_folder
from vitarium.lineage.ground_truth import Truth, true_parents, zoo_origins
from vitarium.lineage.model_set import ModelSet, Report, silent
from vitarium.zoo import Zoo

MIN_COMMON_SHARE = 0.5
"""Models are compared with each other where at least this share of the numbers of each, heads left
out, stands in tensors that all of them have."""

_MAX_LISTED = 5
Signature = frozenset[tuple[str, tuple[int, ...]]]
"""Names and shapes of a model's tensors."""


@dataclass(frozen=True)
class LoadedModels:
    """Loaded models by name: ids of a zoo, `ID@EPOCH` for all epochs, or files' paths.

    Args:
        model_sets: models that can be compared, the largest set first; a model that is like no
            other is a set of its own. In a set, models stand in order of their names.
        shared: of every set, the share of numbers that is compared: of those of its largest
            model, heads left out. 1 where all have the same tensors.
        left_out: why a model or file was not read.
        truth: every model's true parents among those that were read; None where nobody knows.
        info: what is known of a model, to be shown; methods never see it: stage, epoch, accuracy,
            and the factors that differ; of files, the file, and the rest if `models.csv` has it.
    """

    model_sets: Sequence[ModelSet]
    shared: Sequence[float]
    left_out: Mapping[str, str]
    truth: Truth | None
    info: Mapping[str, Mapping[str, Any]]

    @property
    def models(self) -> list[str]:
        """Names of all models, set after set."""
        return list(chain.from_iterable(model_set.names for model_set in self.model_sets))


def load(
    source: Zoo | str | Path,
    *,
    where: str = "",
    epochs: Epochs = "last",
    report: Report = silent,
) -> LoadedModels:
    """Load the models of a zoo, or of all weight files in a folder; tensors are read later.

        load("demo-zoo", where="stage = 'finetune'")
        load("downloads")

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
        models, left_out, checkpoints, info = load_zoo(zoo, where, epochs, report)
        usable = _usable(models, left_out)
        truth: Truth | None = true_parents({n: checkpoints[n] for n in usable}, zoo_origins(zoo))
    else:
        path = Path(source)
        if where or epochs != "last":
            raise InvalidInput(f"{path} is not a zoo: conditions and epochs are for zoos")
        usable, left_out, truth, info = _load_folder(path, report)
    if len(usable) < 2:
        raise InvalidInput(_too_few(path, list(usable), left_out, where))
    model_sets, shared = split_by_tensors(list(usable.values()), report)
    return LoadedModels(model_sets, shared, left_out, truth, {name: info[name] for name in usable})


def first_non_finite(weights: Weights, tensors: Sequence[str]) -> str | None:
    """A message that names the first tensor with an entry that is NaN or infinite, else None."""
    for name in tensors:
        tensor = weights[name]
        if not torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float()).all():
            return f"{name} has entries that are not finite"
    return None


def split_by_tensors(
    models: Sequence[Weights], report: Report = silent
) -> tuple[list[ModelSet], list[float]]:
    """Sets of models that can be compared, and the share of numbers that is: see `LoadedModels`.

    Models with the same tensors are a group. Beginning with the largest, each group joins the set
    with which it has most in common, if that leaves MIN_COMMON_SHARE of every model of the set.
    """
    groups: dict[Signature, list[Weights]] = defaultdict(list)
    for model in models:
        groups[signature(model)].append(model)
    order = sorted(groups, key=lambda s: (-len(groups[s]), -_num_weights(s), sorted(s)))
    builders: list[_SetBuilder] = []
    for shapes in order:
        shares = [model_set.share_with(shapes) for model_set in builders]
        best = max(shares, default=0.0)
        if best < MIN_COMMON_SHARE:
            builders.append(_SetBuilder(shapes, _num_weights(shapes), []))
        model_set = builders[shares.index(best)] if best >= MIN_COMMON_SHARE else builders[-1]
        model_set.common &= shapes
        model_set.largest = max(model_set.largest, _num_weights(shapes))
        model_set.models += groups[shapes]
    sets = []
    for model_set in builders:
        members = sorted(model_set.models, key=lambda model: model.name)
        tensors = sorted((name for name, _ in model_set.common), key=_natural)
        sets.append(
            (ModelSet(members, tensors, report), _num_weights(model_set.common) / model_set.largest)
        )
    sets.sort(key=lambda model_set: (-len(model_set[0]), model_set[0].names[0]))
    return [model_set for model_set, _ in sets], [share for _, share in sets]


def signature(model: Weights) -> Signature:
    """Names and shapes of a model's tensors of real numbers, its head's left out."""

    def look() -> Signature:
        shapes = model.shapes
        names = in_scope(model, "trunk")
        return frozenset((name, shapes[name]) for name in names if math.prod(shapes[name]))

    return model.remember("signature", look)


@dataclass
class _SetBuilder:
    """Groups of models that are compared with each other."""

    common: Signature
    largest: int
    models: list[Weights]

    def share_with(self, shapes: Signature) -> float:
        """The share that would be compared if another group joined."""
        return _num_weights(self.common & shapes) / max(self.largest, _num_weights(shapes))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key with block 2 before block 10; no model's own order, on which sums would depend."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _num_weights(shapes: Signature) -> int:
    return sum(math.prod(shape) for _, shape in shapes)


def _usable(models: Mapping[str, Weights], left_out: dict[str, str]) -> dict[str, Weights]:
    """Models that have anything to compare."""
    usable = {}
    for name, model in models.items():
        if signature(model):
            usable[name] = model
        else:
            left_out[name] = "it has no tensors of real numbers" + (
                " but those of a head" if model.shapes else ""
            )
    return usable


def _load_folder(
    folder: Path, report: Report
) -> tuple[dict[str, Weights], dict[str, str], Truth | None, dict[str, dict[str, Any]]]:
    if not folder.is_dir():
        what = "is a file; name the folder that it is in" if folder.exists() else "is not there"
        raise InvalidInput(f"{folder} {what}")
    files.listed(folder)
    with reading(folder):
        models, left_out, paths_by_name = load_folder(folder, report)
    if not paths_by_name:
        raise InvalidInput(
            f"{folder} is neither a zoo (it has no zoo.json) nor a folder with files of weights "
            f"({', '.join(SUFFIXES)})"
        )
    usable = _usable(models, left_out)
    paths = {name: paths_by_name[name].relative_to(folder).as_posix() for name in usable}
    info: dict[str, dict[str, Any]] = {name: {"file": path} for name, path in paths.items()}
    table = find_parent_table(folder, paths_by_name, list(usable))
    if table is None:
        return usable, left_out, None, info
    info = {name: file_info | table.info.get(paths[name], {}) for name, file_info in info.items()}
    truth = true_parents({n: table.checkpoints[p] for n, p in paths.items()}, table.origins)
    return usable, left_out, truth, info


def _too_few(path: Path, usable: Sequence[str], left_out: Mapping[str, str], where: str) -> str:
    which = f"for which {where} " if where else ""
    has = f"one, {usable[0]}" if usable else "none"
    text = f"{path}: lineage needs two models or more {which}and there is {has}"
    refused = [f"\n  {name} was left out: {why}" for name, why in left_out.items()]
    more = [f"\n  and {len(refused) - _MAX_LISTED} more"] if len(refused) > _MAX_LISTED else []
    return text + "".join(refused[:_MAX_LISTED] + more)
