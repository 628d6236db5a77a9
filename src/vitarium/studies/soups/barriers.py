"""How far the loss rises between two models, by how close kin they are, before and after alignment.

Kinship is that of the study of diversity: of one parent; of different parents of one kind (another
seed of the same recipe); of parents of different kinds (supervised, contrastive).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.registry import Section
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import Losses
from vitarium.measures.landscape._paths import barriers
from vitarium.measures.landscape.barrier import Barrier, path_losses
from vitarium.studies.request import Report
from vitarium.studies.soups.groups import Kinfolk
from vitarium.studies.soups.results import Absent
from vitarium.studies.soups.runs import Runs
from vitarium.studies.statistics.analysis import SAME_PARENT, Kin, kinship
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import PARENT, is_seed
from vitarium.studies.statistics.population import Stage

BEFORE = ""
"""Of pairs that are not aligned."""


@dataclass(frozen=True)
class Line:
    """The straight line between two models' weights."""

    one: str
    other: str
    kin: str
    align: str
    """What rearranged the second model before; empty: nothing."""
    places: tuple[float, ...]
    losses: Losses

    @property
    def rise(self) -> Numbers:
        """Of the loss above the line between the ends, at each place."""
        loss, t = self.losses.loss.numpy(), np.asarray(self.places)
        rise: Numbers = loss - (1 - t) * loss[0] - t * loss[-1]
        return rise

    @property
    def barrier(self) -> float:
        """Nats; 0 where the loss does not rise."""
        return barriers(self.places, self.losses)[""]

    @property
    def soup_gain(self) -> float:
        """Accuracy halfway, where the uniform soup of both is, less the mean of both."""
        return -barriers(self.places, self.losses)["midpoint/error"]


@dataclass
class Lines:
    """What was measured between the models of a stage."""

    kin: Sequence[Kin]
    """The closest first."""
    found: list[Line] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)

    @property
    def alignments(self) -> list[str]:
        """Those that were tried, the first before any."""
        return list(dict.fromkeys([BEFORE, *(line.align for line in self.found)]))

    def of(self, align: str, kin: str | None = None) -> list[Line]:
        return [line for line in self.found if line.align == align and kin in (None, line.kin)]

    def matrix(self, stage: Stage, value: str, align: str = BEFORE) -> Numbers:
        """A property of lines, [models, models]; NaN where there is no line."""
        place = {id: number for number, id in enumerate(stage.ids)}
        found = np.full((len(stage), len(stage)), np.nan)
        for line in self.of(align):
            one, other = place[line.one], place[line.other]
            found[one, other] = found[other, one] = getattr(line, value)
        return found


def kin_of(stage: Stage) -> list[Kin]:
    """Pairs by how close kin they are; of a stage of one parent, all are siblings."""
    of_parents = (f for f in stage.groups if f.name.startswith(f"{PARENT}'s "))
    ancestry = next((f for f in of_parents if not is_seed(f.name)), None)
    if found := kinship(stage, ancestry):
        return found
    there = np.asarray([parent is not None for parent in stage.parents])
    return [Kin(SAME_PARENT, there[:, None] & there[None, :] & ~np.eye(len(stage), dtype=bool))]


def lines(
    runs: Runs,
    kin: Kinfolk,
    aligning: Sequence[Section],
    *,
    pairs: int,
    aligned_pairs: int,
    points: int,
    images: int,
    seed: int,
    report: Report,
) -> Lines:
    """The losses between models that can be averaged.

    Args:
        pairs: at most so many of each kinship, drawn in an order that only the models decide.
        aligned_pairs: so many of these also after each alignment.
    """
    stage, config = kin.stage, Barrier(points=points, images=images)
    found = Lines(kin_of(stage))
    todo: list[tuple[str, CheckpointRef, CheckpointRef, Section | None]] = []
    for kinship_ in found.kin:
        drawn = _drawn(kin, kinship_, seed)[:pairs]
        todo += [(kinship_.name, *pair, None) for pair in drawn]
        todo += [
            (kinship_.name, *pair, align) for align in aligning for pair in drawn[:aligned_pairs]
        ]
    for done, (name, one, other, align) in enumerate(todo):
        report("walking between models", done, len(todo))
        aligned = align.name if align else BEFORE
        try:
            losses = _between(runs, one, other, align, config)
        except VitariumError as error:
            what = f"barrier after {aligned.replace('_', ' ')}" if align else "barrier"
            pair = f"{one.model[:8]} and {other.model[:8]}"
            found.absent.append(Absent(what, pair, str(error)))
            continue
        found.found.append(
            Line(one.model, other.model, name, aligned, tuple(config.places), losses)
        )
    return found


def _drawn(kin: Kinfolk, kinship_: Kin, seed: int) -> list[tuple[CheckpointRef, CheckpointRef]]:
    """Pairs of models with equal shapes; the order does not change with what else there is."""
    there = [
        (one, other)
        for one, other in combinations(sorted(kin.members), 2)
        if kinship_.chosen[kin.stage.ids.index(one), kin.stage.ids.index(other)]
        and kin.shapes[one] == kin.shapes[other]
    ]
    there.sort(key=lambda pair: derive(seed, "pair", *pair))
    return [(kin.members[one], kin.members[other]) for one, other in there]


def _between(
    runs: Runs, one: CheckpointRef, other: CheckpointRef, align: Section | None, config: Barrier
) -> Losses:
    """From the cache, if it is known. Raises NotApplicable, IncompatibleWeights, CorruptFile."""
    images = runs.sources.images(runs.examples(one.model, runs.split))
    told = [f"{config.points}", f"{config.images}", repr(align.factors()) if align else BEFORE]
    ends = [text for end in (one, other) for text in _told(runs, end)]
    key = ("paths", *ends, images, *told)
    kept = runs.cache.get(*key)
    if kept is None:
        runs.computed += 1
        first, second = runs.subject(one), runs.subject(other)
        if align:
            model = deepcopy(second.model)
            model.load_state_dict(dict(runs.aligned(align, one, other)))
            second = replace(second, model=model)
        losses = path_losses(first, second, config.places, config)
        if not torch.isfinite(losses.loss).all():
            raise NotApplicable("the loss between them is not finite")
        runs.cache.put({"loss": losses.loss, "error": losses.error}, *key)
        return losses
    return Losses(kept["loss"], kept["error"])


def _told(runs: Runs, one: CheckpointRef) -> tuple[str, str]:
    target = runs.target(one)
    return target.name, target.weights
