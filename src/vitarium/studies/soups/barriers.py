"""How far the loss rises between two models, by kinship, before and after alignment."""

import math
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.progress import Progress
from vitarium.core.registry import Section
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import Losses
from vitarium.measures.landscape._paths import OnPath, barriers
from vitarium.measures.landscape.barrier import path_losses
from vitarium.studies.soups.evaluator import Evaluator
from vitarium.studies.soups.experiments import Experiments, Failure, label
from vitarium.studies.soups.groups import SiblingGroups
from vitarium.studies.statistics.analysis import SAME_PARENT, Kin, kinship, pairs_sharing
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers
from vitarium.studies.statistics.factors import PARENT, Factor
from vitarium.studies.statistics.stages import Stage

BEFORE = ""  # of pairs that are not aligned
Pair = tuple[CheckpointRef, CheckpointRef]
UNRELATED = "of different parents"
DIFFERENT = "different"  # begins the name of pairs that differ in a factor


@dataclass(frozen=True)
class InterpolationPath:
    """The straight line between two models' weights."""

    first: str
    second: str
    kin: str
    align: str  # what rearranged the second model before; empty: nothing
    t: tuple[float, ...]  # positions on the line, 0 at the first model, 1 at the second
    losses: Losses

    @property
    def rise(self) -> Numbers:
        """Loss above the straight line between the losses of the ends, [positions]."""
        loss, t = self.losses.loss.numpy(), np.asarray(self.t)
        return loss - (1 - t) * loss[0] - t * loss[-1]

    @cached_property
    def barrier(self) -> float:
        """Nats; 0 where the loss does not rise."""
        return barriers(self.t, self.losses)[""]

    @cached_property
    def soup_gain(self) -> float:
        """Accuracy halfway, where the uniform soup of both is, less the mean of both."""
        return -barriers(self.t, self.losses)["midpoint/error"]


class PairEstimate(NamedTuple):
    """Pairs of models of one kinship; `gain`: accuracy of two models' soup less their mean."""

    name: str
    pairs: int
    barrier: Estimate
    gain: Estimate


class AlignmentEstimate(NamedTuple):
    """Pairs of one kinship, before and after an alignment, in nats; the gain is that after it.

    `share`: of the barrier that is taken away; NaN where there is none.
    """

    name: str
    align: str
    pairs: int
    before: Estimate
    after: Estimate
    reduction: Estimate
    gain: Estimate
    share: Estimate


@dataclass
class Barriers:
    """The paths between the models of a stage, and means over them; intervals are over models."""

    stage: Stage
    bootstrap: Bootstrap
    paths: list[InterpolationPath] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @cached_property
    def kin(self) -> list[Kin]:
        """Pairs by how close kin they are, the closest first; of one parent, all are siblings."""
        if kin := kinship(self.stage):
            return kin
        has_parent = np.asarray([parent is not None for parent in self.stage.parents])
        siblings = has_parent[:, None] & has_parent & ~np.eye(len(self.stage), dtype=bool)
        return [Kin(SAME_PARENT, siblings)]

    @property
    def unrelated(self) -> list[Kin]:
        """All pairs of models of different parents, together."""
        mask = np.zeros((len(self.stage),) * 2, dtype=bool)
        for kin in self.kin[1:]:
            mask |= kin.mask
        return [Kin(UNRELATED, mask)]

    @property
    def factors(self) -> list[Factor]:
        """What siblings differ in."""
        return [f for f in self.stage.groups if not f.name.startswith(PARENT)]

    def siblings(self, factor: Factor) -> list[Kin]:
        """Siblings that share each value of a factor, and those that differ in it."""
        siblings, name, sharing = self.kin[0].mask, factor.name, pairs_sharing(factor)
        labels = np.asarray(factor.labels[self.stage.ids].tolist())
        same = [Kin(f"{name} = {v}", siblings & sharing & (labels == v)) for v in factor.values]
        return [*same, Kin(f"{DIFFERENT} {name}", siblings & ~sharing)]

    @property
    def alignments(self) -> list[str]:
        """Those that were tried, the first before any."""
        return list(dict.fromkeys([BEFORE, *(path.align for path in self.paths)]))

    def of(self, align: str, kin: str | None = None) -> list[InterpolationPath]:
        return [path for path in self.paths if path.align == align and kin in (None, path.kin)]

    @cached_property
    def matrices(self) -> dict[str, Numbers]:
        """By alignment: barriers, and gains halfway, [2, models, models]; NaN where no path is."""
        index = {id: number for number, id in enumerate(self.stage.ids)}
        matrices = {align: np.full((2, *(len(index),) * 2), np.nan) for align in self.alignments}
        for path in self.paths:
            i, j = index[path.first], index[path.second]
            matrix = matrices[path.align]
            matrix[:, i, j] = matrix[:, j, i] = path.barrier, path.soup_gain
        return matrices

    def means(self, kin: Iterable[Kin]) -> list[PairEstimate]:
        """Those without paths left out."""
        (heights, gains), mean = self.matrices[BEFORE], self.bootstrap.pairs
        return [
            PairEstimate(pairs.name, count, mean(heights, pairs.mask), mean(gains, pairs.mask))
            for pairs in kin
            if (count := int((pairs.mask & np.isfinite(heights)).sum()) // 2)
        ]

    def aligned(self, kin: Iterable[Kin]) -> list[AlignmentEstimate]:
        """Each alignment of each; those without paths left out."""
        estimates, models = [], len(self.stage)
        before, mean = self.matrices[BEFORE][0], self.bootstrap.pairs
        counts = np.vstack([np.ones(models), self.bootstrap.counts(models)])
        for pairs, align in product(kin, self.alignments[1:]):
            after, gains = self.matrices[align]
            valid = pairs.mask & np.isfinite(after) & np.isfinite(before)
            if not valid.any():
                continue
            old, new = (
                ((counts @ np.where(valid, heights, 0.0)) * counts).sum(1)
                for heights in (before, after)
            )
            shares = np.divide(old - new, old, out=np.full(len(counts), math.nan), where=old > 0)
            share = self.bootstrap.estimate(float(shares[0]), shares[1:], int(valid.any(1).sum()))
            nats = mean(before, valid), mean(after, valid), mean(before - after, valid)
            key, count = (pairs.name, align), int(valid.sum()) // 2
            estimates.append(AlignmentEstimate(*key, count, *nats, mean(gains, valid), share))
        return estimates


def interpolate(experiments: Experiments, progress: Progress) -> Barriers:
    """The losses between models that can be averaged."""
    config, groups, aligning = experiments.config, experiments.groups, experiments.methods["align"]
    barrier = OnPath(points=config.points, num_images=config.barrier_images)
    results = Barriers(groups.stage, config.bootstrap)
    jobs: list[tuple[str, Pair, Section | None]] = []
    for kin in results.kin:
        pairs = _drawn_pairs(groups, kin, config.seed)[: config.pairs]
        jobs += [(kin.name, pair, None) for pair in pairs]
        few = pairs[: config.aligned_pairs]
        jobs += [(kin.name, pair, align) for align in aligning for pair in few]
    for done, (kin_name, pair, align) in enumerate(jobs):
        progress.step("walking between models", done, len(jobs))
        (first, second), aligned = (end.model for end in pair), align.name if align else BEFORE
        try:
            losses = _losses(experiments.evaluator, pair, align, barrier)
        except VitariumError as error:
            models = f"{first[:8]} and {second[:8]}"
            results.failures.append(Failure(label("barrier", aligned), models, str(error)))
            continue
        t = tuple(barrier.positions)
        results.paths.append(InterpolationPath(first, second, kin_name, aligned, t, losses))
    return results


def _drawn_pairs(groups: SiblingGroups, kin: Kin, seed: int) -> list[Pair]:
    """Pairs of models with equal shapes; the order does not change with what else there is."""
    index = {id: number for number, id in enumerate(groups.stage.ids)}
    pairs = [
        (first, second)
        for first, second in combinations(sorted(groups.members), 2)
        if kin.mask[index[first], index[second]] and groups.shapes[first] == groups.shapes[second]
    ]
    pairs.sort(key=lambda pair: derive(seed, "pair", *pair))
    return [(groups.members[first], groups.members[second]) for first, second in pairs]


def _losses(evaluator: Evaluator, pair: Pair, align: Section | None, config: OnPath) -> Losses:
    """From the cache, if it is known. Raises NotApplicable, IncompatibleWeights, CorruptFile."""
    images = evaluator.sources.images(evaluator.examples(pair[0].model, evaluator.split))
    ends = [text for end in pair for text in (str(end), evaluator.sources.content(end))]
    settings = [str(config.points), str(config.num_images)]
    settings.append(repr(align.factors()) if align else BEFORE)
    key = ("paths", *ends, images, *settings)
    if entry := evaluator.cache.get(*key):
        return Losses(entry["loss"], entry["error"])
    start, end = map(evaluator.subject, pair)
    parts, positions = [evaluator.losses(pair[0], config)], config.positions[1:]
    if align:
        model = deepcopy(end.model)
        model.load_state_dict(dict(evaluator.aligned(align, *pair)))
        parts.append(path_losses(start, replace(end, model=model), positions, config))
    else:
        parts.append(path_losses(start, end, positions[:-1], config))
        parts.append(evaluator.losses(pair[1], config))
    losses = Losses(*(torch.cat(values) for values in zip(*parts, strict=True)))
    if not torch.isfinite(losses.loss).all():
        raise NotApplicable("the loss between them is not finite")
    evaluator.cache.put({"loss": losses.loss, "error": losses.error}, *key)
    return losses
