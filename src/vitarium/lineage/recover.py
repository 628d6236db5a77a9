"""Recover the lineage of a zoo or of a folder of files, and score it where the truth is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose, section
from vitarium.lineage._clusters import AT_ONCE
from vitarium.lineage._sketches import sketched
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.ground_truth import Truth, within
from vitarium.lineage.model_set import Heap, Report, silent
from vitarium.lineage.reading import Found, fault, read
from vitarium.lineage.scores import Scores, scores
from vitarium.lineage.zoo_models import Epochs
from vitarium.zoo import Zoo

_MOST_COMPARED = 2_000
"""Models of one shape up to which other methods run beside: they look at all pairs at once."""


@dataclass(frozen=True)
class Group:
    """Models that could be compared with each other.

    Args:
        tensors: how many were compared.
        shared: their share of the numbers of the largest model, heads left out.
    """

    models: Sequence[str]
    tensors: int
    shared: float


@dataclass(frozen=True)
class Recovered:
    """The lineage of everything that was read.

    Args:
        forest: what the method recovered; families are numbered across groups.
        truth: every model's true parents, where they are known.
        scores: of the forest against the truth.
        others: forests of other methods, and their scores, by name.
        left_out: models and files that were set aside, and why.
        info: what is known of a model, to be shown.
    """

    forest: Forest
    truth: Truth | None
    scores: Scores | None
    others: Mapping[str, tuple[Forest, Scores | None]]
    left_out: Mapping[str, str]
    groups: Sequence[Group]
    info: Mapping[str, Mapping[str, Any]]


def recover(
    source: Zoo | str | Path,
    method: str | Section = "descent",
    *,
    trees: int | None = None,
    compare: Sequence[str | Section] = (),
    truth: bool | None = None,
    where: str = "",
    epochs: Epochs = "last",
    report: Report = silent,
    **settings: Any,
) -> Recovered:
    """Recover which model descends from which, from their weights alone.

        found = vitarium.recover("downloads")
        found.forest.parents["model-7"]
        vitarium.recover(zoo, "mother", direction="specialisation").scores

    Models are read as `lineage.reading.read` has it; those of different shapes are never compared.

    Args:
        source: a zoo, or a folder with files of weights of anyone.
        method: a method of lineage recovery (`vitarium plugins lineages`).
        trees: how many trees there are; None: to be found.
        compare: other methods to run on the same models, with their defaults; those that can be
            told the roots are told the true ones, where they are known. Of more than 2,000 models
            they are left out, and the forest's notes say so.
        truth: score against true parents: None where they are known; True: raise where they are
            not; False: never.
        where: of a zoo, only models that fulfil this condition, as `vitarium ls` has it.
        epochs: of a zoo, models after their last epoch, or every kept epoch as a model of its own.
        report: called with what is done, and how much of how much.
        settings: of the method.

    Raises UnknownName, InvalidConfig, NotAZoo, and InvalidInput for fewer than two models that
    can be used, a truth that is not known, or more trees than models.
    """
    chosen = choose("lineage", method, **settings) if isinstance(method, str) else method
    found = _usable(read(source, where=where, epochs=epochs, report=report))
    if truth and found.truth is None:
        raise InvalidInput(
            f"{source}: nobody knows the true parents; a zoo does, and a folder with a table of "
            "them: lineage.csv with the columns model and parent, or the models.csv of an export"
        )
    known = None if truth is False else found.truth
    if trees is not None and len(found.heaps) > 1:
        raise InvalidInput(
            f"{trees} trees, but models of {len(found.heaps)} different shapes, each of which has "
            "its own; leave the number out, or look at one shape at a time"
        )
    roots = [model for model, parents in known.items() if not parents] if known else []
    own = _of_all(chosen, found, trees, report)
    if compare and max(map(len, found.heaps)) > _MOST_COMPARED:
        names = ", ".join(section("lineage", one).name for one in compare)
        note = (
            f"No other method ran beside it ({names}): there are more than {_MOST_COMPARED} models."
        )
        own, compare = replace(own, notes=[*own.notes, note]), ()
    others = [_of_all(section("lineage", one), found, trees, report, roots) for one in compare]
    scored = [(forest, scores(forest, known) if known else None) for forest in (own, *others)]
    return Recovered(
        forest=own,
        truth=known,
        scores=scored[0][1],
        others={forest.method: (forest, score) for forest, score in scored[1:]},
        left_out=found.left_out,
        groups=[
            Group(heap.names, len(heap.tensors), share)
            for heap, share in zip(found.heaps, found.shared, strict=True)
        ],
        info=found.info,
    )


def _usable(found: Found) -> Found:
    """Without models that have numbers that are none."""
    left_out, heaps, shared = dict(found.left_out), [], []
    for heap, share in zip(found.heaps, found.shared, strict=True):
        good = _finite(heap)
        for place in np.flatnonzero(~good).tolist():
            model = heap.models[place]
            left_out[model.name] = fault(model, heap.tensors) or "its weights are too large"
        if good.any():
            heaps.append(heap if good.all() else heap.part(np.flatnonzero(good).tolist()))
            shared.append(share)
    usable = replace(found, heaps=heaps, shared=shared, left_out=left_out)
    if len(usable.models) < 2:
        named = "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items()))
        raise InvalidInput(f"lineage takes two models or more that can be used ({named})")
    truth = within(found.truth, usable.models) if found.truth is not None else None
    return replace(usable, truth=truth)


def _finite(heap: Heap) -> np.ndarray:
    """Which models have no number that is none, of the evidence that is looked at anyway."""
    if len(heap) > AT_ONCE:
        return np.isfinite(sketched(heap, size=1, tensors=heap.tensors)).all(1)
    finite: np.ndarray = np.isfinite(heap.evidence.gram().diagonal())
    return finite


def _of_all(
    method: Section, found: Found, trees: int | None, report: Report, roots: Sequence[str] = ()
) -> Forest:
    """One forest of the forests of all heaps."""
    forests: list[Forest] = []
    for heap in found.heaps:
        report(f"recovering: {method.name}", len(forests), len(found.heaps))
        if len(heap) == 1:
            forests.append(Forest(method.name, heap.names, [0], (), {heap.names[0]: 1.0}))
            continue
        told = tuple(sorted(set(roots) & set(heap.names)))
        if told and "roots" in type(method.config).model_fields:
            knowing = replace(method, config=method.config.changed({"roots": told}))
            forests.append(knowing(heap, None))
        else:
            forests.append(method(heap, trees))
    families: list[int] = []
    for forest in forests:
        first = max(families, default=-1) + 1
        families += [first + number for number in forest.families]
    edges: list[Edge] = [edge for forest in forests for edge in forest.edges]
    return Forest(
        method=method.name,
        models=[name for forest in forests for name in forest.models],
        families=families,
        edges=edges,
        roots={name: sure for forest in forests for name, sure in forest.roots.items()},
        tied=[group for forest in forests for group in forest.tied],
        notes=list(dict.fromkeys(note for forest in forests for note in forest.notes)),
    )
