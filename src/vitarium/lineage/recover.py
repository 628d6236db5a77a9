"""Recover the lineage of a zoo or of a folder of files, and score it where the truth is known."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import counted
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose, section
from vitarium.lineage._clusters import MAX_ALL_PAIRS, sketch_weights
from vitarium.lineage.base import DECIDED, Edge, Forest
from vitarium.lineage.changes import describe_change
from vitarium.lineage.ground_truth import Truth, restrict_truth
from vitarium.lineage.load import Epochs, LoadedModels, first_non_finite, load
from vitarium.lineage.scores import Scores, scores
from vitarium.zoo import Zoo
from vitarium.zoo.model import ModelNames

if TYPE_CHECKING:
    import pandas as pd

MAX_COMPARED_MODELS = 2_000
"""Models of one shape up to which other methods run beside: they look at all pairs at once."""
MAX_DESCRIBED_NUMBERS = 1_000_000_000
"""Of all edges' children, up to which it is described what changed: 46 of ViT-S, in a minute."""
_DESCRIBED_KINDS = ("trained", "low_rank", "copy")  # where storage or merging changed nothing


@dataclass(frozen=True)
class ModelGroup:
    """Models that could be compared with each other, by so many tensors."""

    models: Sequence[str]
    tensors: int
    shared: float  # their share of the largest model's parameters, heads left out


@dataclass(frozen=True)
class Recovered:
    """Recovered lineage of everything that was read."""

    forest: Forest  # families are numbered across groups
    truth: Truth | None
    scores: Scores | None
    others: Mapping[str, tuple[Forest, Scores | None]]
    """Forests of other methods, and their scores, by name."""
    left_out: Mapping[str, str]  # why, by model or file
    groups: Sequence[ModelGroup]
    info: Mapping[str, Mapping[str, Any]]  # see `LoadedModels.info`

    def __repr__(self) -> str:
        forest = self.forest
        counts = f"{len(forest.trees)} trees, {len(forest.edges)} edges"
        scores = asdict(self.scores).items() if self.scores else ()
        lines = (
            [f"cannot tell the parent: {counted(len(forest.undecided), 'model')}"]
            if forest.undecided
            else []
        )
        lines += [f"{name}: {value:.4g}" for name, value in scores if value is not None]
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n".join(
            [f"{counted(len(forest.models), 'model')} by {forest.method}: {counts}", *lines]
        )

    @property
    def knows_all_parents(self) -> bool:
        """Whether the true parents of every model are known."""
        return self.truth is not None and self.truth.keys() >= set(self.forest.models)

    def to_frame(self) -> "pd.DataFrame":
        """A row per edge, and one without a parent per root: model, tree, parent, confidence,
        share, kind, change (what training changed), decided (confidence of 90 % or more; else the
        weights cannot tell), candidates (probability by parent); where the truth is known
        true_parents, too, a tuple of names, or None."""
        import pandas as pd

        forest = self.forest
        rows = [{"model": edge.child, **asdict(edge)} for edge in forest.edges]
        rows += [{"model": root, "confidence": sure} for root, sure in forest.roots.items()]
        columns = ["model", "parent", "confidence", "share", "kind", "change"]
        trees = pd.DataFrame({"model": forest.models, "tree": forest.families})
        edges = pd.DataFrame(rows, columns=columns, dtype=object)
        frame = trees.merge(edges.astype({"confidence": float, "share": float}), on="model")
        frame["decided"] = frame["confidence"] >= DECIDED
        frame["candidates"] = [dict(forest.candidates.get(model, {})) for model in frame["model"]]
        if self.truth is not None:
            frame["true_parents"] = [self.truth.get(model) for model in frame["model"]]
        return frame


def recover(
    source: Zoo | str | Path,
    method: str | Section = "descent",
    *,
    trees: int | None = None,
    compare: Sequence[str | Section] = (),
    truth: bool | None = None,
    models: ModelNames | None = None,
    where: str = "",
    epochs: Epochs = "last",
    progress: Progress = SILENT,
    **settings: Any,
) -> Recovered:
    """Recover which model descends from which, from their weights alone, as `lineage.load.load`
    reads them; models of different shapes are never compared.

        recovered = vitarium.recover("downloads")
        recovered.forest.parents["model-7"]
        vitarium.recover(zoo, "mother", direction="specialization").scores

    Args:
        source: a zoo, or any folder of weight files.
        method: see `vitarium plugins lineages`.
        trees: number of trees; None: inferred.
        compare: other methods to run on the same models, with their defaults; those that take
            roots are given the true ones, where all of them are known. Of more than 2,000 models
            they are left out, and the forest's notes say so.
        truth: score against true parents: None where they are known; True: raise where they are
            not; False: never.
        models: of a zoo, only these, by their ids or beginnings of them.
        where: of a zoo, only models that fulfill this condition, as `vitarium ls` has it.
        epochs: of a zoo, models after their last epoch, or every kept epoch as a model of its own.
        settings: of the method.

    Raises UnknownName, InvalidConfig, NotAZoo, and InvalidInput for fewer than two models that
    can be used, a truth that is not known, or more trees than models.
    """
    chosen = choose("lineage", method, **settings) if isinstance(method, str) else method
    baselines = [section("lineage", baseline) for baseline in compare]
    loaded = _usable(load(source, models=models, where=where, epochs=epochs, progress=progress))
    if truth and loaded.truth is None:
        raise InvalidInput(
            f"{source}: the true parents are not known; use a zoo of grown models, or put a table "
            "of them into a folder of files: lineage.csv with the columns model and parent, or the "
            "models.csv of an export"
        )
    if trees is not None and len(loaded.model_sets) > 1:
        what = f"{trees} trees, but models of {len(loaded.model_sets)} different shapes"
        hint = "leave the number out, or look at one shape at a time"
        raise InvalidInput(f"{what}, each of which has its own; {hint}")
    true = loaded.truth if truth is not False else None
    forest = _with_changes(_combined_forest(chosen, loaded, trees), loaded)
    if baselines and max(map(len, loaded.model_sets)) > MAX_COMPARED_MODELS:
        names = ", ".join(baseline.name for baseline in baselines)
        why = f"there are more than {MAX_COMPARED_MODELS} models."
        note = f"No other method ran beside it ({names}): {why}"
        forest, baselines = replace(forest, notes=[*forest.notes, note]), []
    roots = _all_roots(forest.models, true)
    others = [_combined_forest(baseline, loaded, trees, roots) for baseline in baselines]
    return Recovered(
        forest=forest,
        truth=true,
        scores=scores(forest, true) if true else None,
        others={other.method: (other, scores(other, true) if true else None) for other in others},
        left_out=loaded.left_out,
        groups=[
            ModelGroup(model_set.names, len(model_set.tensors), share)
            for model_set, share in zip(loaded.model_sets, loaded.shared, strict=True)
        ],
        info=loaded.info,
    )


def _all_roots(models: Sequence[str], truth: Truth | None) -> set[str]:
    """The true roots, where all of them are known: some alone would mislead a method."""
    if truth is None or not truth.keys() >= set(models):
        return set()
    return {model for model, parents in truth.items() if not parents}


def _usable(loaded: LoadedModels) -> LoadedModels:
    """The same without models that have entries that are NaN or infinite."""
    left_out, model_sets, shared = dict(loaded.left_out), [], []
    for model_set, share in zip(loaded.model_sets, loaded.shared, strict=True):
        # from what is needed anyway: statistics, or of many models sketches
        if len(model_set) > MAX_ALL_PAIRS:
            evidence = sketch_weights(model_set, size=1, tensors=model_set.tensors)[:, 0]
        else:
            evidence = model_set.statistics.gram().diagonal()
        finite = np.isfinite(evidence)
        for index in np.flatnonzero(~finite).tolist():
            model = model_set.models[index]
            why = first_non_finite(model, model_set.tensors)
            left_out[model.name] = why or "its weights are too large"
        if finite.any():
            usable_set = model_set if finite.all() else model_set.subset(np.flatnonzero(finite))
            model_sets.append(usable_set)
            shared.append(share)
    usable = replace(loaded, model_sets=model_sets, shared=shared, left_out=left_out)
    if len(usable.models) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items()))
        raise InvalidInput(f"lineage takes two models or more that can be used ({reasons})")
    truth = (restrict_truth(loaded.truth, usable.models) or None) if loaded.truth else None
    return replace(usable, truth=truth)


def _with_changes(forest: Forest, loaded: LoadedModels) -> Forest:
    """With what training changed along each edge; not where that were too much to read."""
    models = {m.name: m for model_set in loaded.model_sets for m in model_set.models}
    described = [edge for edge in forest.edges if edge.kind in _DESCRIBED_KINDS]
    numbers = sum(math.prod(s) for edge in described for s in models[edge.child].shapes.values())
    if numbers > MAX_DESCRIBED_NUMBERS:
        why = f"edges have more than {MAX_DESCRIBED_NUMBERS:,} numbers together"
        note = f"It was not looked at what training changed: {why}."
        return replace(forest, notes=[*forest.notes, note])
    edges = list[Edge]()
    for edge in forest.edges:
        if edge.kind in _DESCRIBED_KINDS:
            loaded.model_sets[0].progress.step("comparing children", len(edges), len(forest.edges))
            change = describe_change(models[edge.parent], models[edge.child])
            edge = replace(edge, change=str(change))
        edges.append(edge)
    return replace(forest, edges=edges)


def _combined_forest(
    method: Section, loaded: LoadedModels, trees: int | None, roots: Collection[str] = ()
) -> Forest:
    """One forest of the forests of all model sets."""
    forests: list[Forest] = []
    for model_set in loaded.model_sets:
        task = f"recovering: {method.name}"
        model_set.progress.step(task, len(forests), len(loaded.model_sets))
        if len(model_set) == 1:
            forests.append(Forest(method.name, model_set.names, [0], (), {model_set.names[0]: 1.0}))
            continue
        known_roots = tuple(sorted(set(roots) & set(model_set.names)))
        if known_roots and "roots" in type(method.config).model_fields:
            knowing = replace(method, config=method.config.changed({"roots": known_roots}))
            forests.append(knowing(model_set, None))
        else:
            forests.append(method(model_set, trees))
    families: list[int] = []
    for forest in forests:
        first = max(families, default=-1) + 1
        families += [first + number for number in forest.families]
    return Forest(
        method=method.name,
        models=[name for forest in forests for name in forest.models],
        families=families,
        edges=[edge for forest in forests for edge in forest.edges],
        roots={name: confidence for forest in forests for name, confidence in forest.roots.items()},
        tied=[group for forest in forests for group in forest.tied],
        notes=list(dict.fromkeys(note for forest in forests for note in forest.notes)),
        candidates={name: of for forest in forests for name, of in forest.candidates.items()},
    )
