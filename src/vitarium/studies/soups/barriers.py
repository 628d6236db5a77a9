"""How far the loss rises between two models, by how close kin they are, before and after alignment.

Kinship is that of the study of diversity: of one parent; of different parents of one kind (another
seed of the same recipe); of parents of different kinds (supervised, contrastive).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Protocol

import numpy as np
import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.registry import Section
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import Losses
from vitarium.measures.landscape._paths import barriers
from vitarium.measures.landscape.barrier import Barrier, path_losses
from vitarium.studies.base import Progress
from vitarium.studies.soups.evaluator import Evaluator
from vitarium.studies.soups.experiments import Failure
from vitarium.studies.soups.groups import SiblingGroups
from vitarium.studies.statistics.analysis import SAME_PARENT, Kin, kinship
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import PARENT, is_seed
from vitarium.studies.statistics.stages import Stage


class BarrierSettings(Protocol):
    """Between which models barriers are measured, and how closely."""

    pairs: int
    """At most so many of each kinship, drawn in an order that only the models decide."""
    aligned_pairs: int
    """So many of these also after each alignment."""
    points: int
    barrier_images: int
    seed: int


BEFORE = ""
"""Of pairs that are not aligned."""


@dataclass(frozen=True)
class InterpolationPath:
    """The straight line between two models' weights."""

    first: str
    second: str
    kin: str
    align: str
    """What rearranged the second model before; empty: nothing."""
    t: tuple[float, ...]
    """Positions on the line, 0 at the first model, 1 at the second."""
    losses: Losses

    @property
    def rise(self) -> Numbers:
        """Loss above the straight line between the losses of the ends, [positions]."""
        loss, t = self.losses.loss.numpy(), np.asarray(self.t)
        rise: Numbers = loss - (1 - t) * loss[0] - t * loss[-1]
        return rise

    @property
    def barrier(self) -> float:
        """Nats; 0 where the loss does not rise."""
        return barriers(self.t, self.losses)[""]

    @property
    def soup_gain(self) -> float:
        """Accuracy halfway, where the uniform soup of both is, less the mean of both."""
        return -barriers(self.t, self.losses)["midpoint/error"]


@dataclass
class InterpolationPaths:
    """Barriers between the models of a stage."""

    kin: Sequence[Kin]
    """The closest first."""
    paths: list[InterpolationPath] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def alignments(self) -> list[str]:
        """Those that were tried, the first before any."""
        return list(dict.fromkeys([BEFORE, *(path.align for path in self.paths)]))

    def of(self, align: str, kin: str | None = None) -> list[InterpolationPath]:
        return [path for path in self.paths if path.align == align and kin in (None, path.kin)]

    def matrix(self, stage: Stage, value: str, align: str = BEFORE) -> Numbers:
        """A property of paths, [models, models]; NaN where there is no path."""
        index = {id: number for number, id in enumerate(stage.ids)}
        matrix = np.full((len(stage), len(stage)), np.nan)
        for path in self.of(align):
            i, j = index[path.first], index[path.second]
            matrix[i, j] = matrix[j, i] = getattr(path, value)
        return matrix


def kin_of(stage: Stage) -> list[Kin]:
    """Pairs by how close kin they are; of a stage of one parent, all are siblings."""
    of_parents = (f for f in stage.groups if f.name.startswith(f"{PARENT}'s "))
    ancestry = next((f for f in of_parents if not is_seed(f.name)), None)
    if kin := kinship(stage, ancestry):
        return kin
    has_parent = np.asarray([parent is not None for parent in stage.parents])
    different = ~np.eye(len(stage), dtype=bool)
    return [Kin(SAME_PARENT, has_parent[:, None] & has_parent[None, :] & different)]


def interpolation_paths(
    evaluator: Evaluator,
    groups: SiblingGroups,
    aligning: Sequence[Section],
    config: BarrierSettings,
    progress: Progress,
) -> InterpolationPaths:
    """The losses between models that can be averaged."""
    stage = groups.stage
    barrier = Barrier(points=config.points, num_images=config.barrier_images)
    paths = InterpolationPaths(kin_of(stage))
    jobs: list[tuple[str, CheckpointRef, CheckpointRef, Section | None]] = []
    for kin in paths.kin:
        pairs = _pairs(groups, kin, config.seed)[: config.pairs]
        jobs += [(kin.name, *pair, None) for pair in pairs]
        jobs += [
            (kin.name, *pair, align) for align in aligning for pair in pairs[: config.aligned_pairs]
        ]
    for done, (name, first, second, align) in enumerate(jobs):
        progress("walking between models", done, len(jobs))
        aligned = align.name if align else BEFORE
        try:
            losses = _losses(evaluator, first, second, align, barrier)
        except VitariumError as error:
            quantity = f"barrier after {aligned.replace('_', ' ')}" if align else "barrier"
            pair = f"{first.model[:8]} and {second.model[:8]}"
            paths.failures.append(Failure(quantity, pair, str(error)))
            continue
        t = tuple(barrier.positions)
        paths.paths.append(InterpolationPath(first.model, second.model, name, aligned, t, losses))
    return paths


def _pairs(groups: SiblingGroups, kin: Kin, seed: int) -> list[tuple[CheckpointRef, CheckpointRef]]:
    """Pairs of models with equal shapes; the order does not change with what else there is."""
    index = {id: number for number, id in enumerate(groups.stage.ids)}
    pairs = [
        (first, second)
        for first, second in combinations(sorted(groups.members), 2)
        if kin.mask[index[first], index[second]] and groups.shapes[first] == groups.shapes[second]
    ]
    pairs.sort(key=lambda pair: derive(seed, "pair", *pair))
    return [(groups.members[first], groups.members[second]) for first, second in pairs]


def _losses(
    evaluator: Evaluator,
    first: CheckpointRef,
    second: CheckpointRef,
    align: Section | None,
    config: Barrier,
) -> Losses:
    """From the cache, if it is known. Raises NotApplicable, IncompatibleWeights, CorruptFile."""
    images = evaluator.sources.images(evaluator.examples(first.model, evaluator.split))
    content = evaluator.sources.content
    ends = [text for end in (first, second) for text in (str(end), content(end))]
    settings = [
        f"{config.points}",
        f"{config.num_images}",
        repr(align.factors()) if align else BEFORE,
    ]
    key = ("paths", *ends, images, *settings)
    entry = evaluator.cache.get(*key)
    if entry is not None:
        return Losses(entry["loss"], entry["error"])
    evaluator.computed += 1
    start, end = evaluator.subject(first), evaluator.subject(second)
    if align:
        model = deepcopy(end.model)
        model.load_state_dict(dict(evaluator.aligned(align, first, second)))
        end = replace(end, model=model)
    losses = path_losses(start, end, config.positions, config)
    if not torch.isfinite(losses.loss).all():
        raise NotApplicable("the loss between them is not finite")
    evaluator.cache.put({"loss": losses.loss, "error": losses.error}, *key)
    return losses
