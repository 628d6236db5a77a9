"""When an image leaves a model: at the first exit that is certain enough of its class."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from vitarium.core.config import Config

Criterion = Literal["confidence", "entropy", "patience"]


class ExitRule(Config):
    """When an image leaves."""

    threshold: float = Field(0.8, ge=0, le=1)
    """An image leaves at the first exit whose certainty is above it; 0: all images at the first
    exit, 1: none before the last block."""
    criterion: Criterion = "confidence"
    """Certainty of an exit: the largest probability of a class (confidence), one minus the entropy
    over its maximum, log(classes) (entropy; Teerapittayanon et al. 2017, arXiv 1709.01686), or the
    share of all exits that agree in a row up to this one (patience; Zhou et al. 2020, arXiv
    2006.04152)."""


class EarlyExits(ExitRule):
    """Which blocks have exits, when images leave there, and how much exits count in training."""

    exit_blocks: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    """Numbers of the blocks, from 0, after which exits stand, in order; null: the architecture's
    own choice."""
    exit_weight: NonNegativeFloat = 1.0
    """Weight of the exits' loss beside that of the objective."""

    def exit_mismatches(self, depth: int) -> Iterator[str]:
        """All that does not go together with so many blocks."""
        numbers = self.exit_blocks or ()
        if list(numbers) != sorted(set(numbers)):
            yield f"exit_blocks {list(numbers)} are not in order, or name a block twice"
        if depth < 2:
            yield "depth 1 leaves no block before the last one that could have an exit; take 2"
        elif numbers and max(numbers) > depth - 2:
            yield (
                f"exit_blocks {max(numbers)}: exits stand after blocks 0 to {depth - 2}; after the "
                "last one stands the head"
            )


class Certainty:
    """How certain the exits are of some images, in [0, 1], exit by exit.

    total: number of the exits.
    """

    def __init__(self, criterion: Criterion, total: int) -> None:
        self.criterion, self.total = criterion, total
        self._classes: Tensor | None = None
        self._run: Tensor | None = None

    def after(self, logits: Tensor) -> Tensor:
        """Of the next exit, logits [n, classes] -> [n]"""
        if self.criterion == "patience":
            return self._agreement(logits.argmax(1))
        wide = torch.promote_types(logits.dtype, torch.float32)
        logs = logits.to(wide).log_softmax(1)
        if self.criterion == "confidence":
            return logs.amax(1).exp()
        entropy = -(logs.exp() * logs).sum(1)
        return 1 - entropy / math.log(max(logits.shape[1], 2))

    def _agreement(self, classes: Tensor) -> Tensor:
        run = torch.ones_like(classes)
        if self._classes is not None and self._run is not None:
            run = torch.where(classes == self._classes, self._run + 1, run)
        self._classes, self._run = classes, run
        return run / self.total

    def keep(self, stay: Tensor) -> None:
        """Go on with the images with these numbers, int64 [m]."""
        if self._classes is not None and self._run is not None:
            self._classes, self._run = self._classes[stay], self._run[stay]


def first_exits(rule: ExitRule, logits: Tensor) -> Tensor:
    """Of the logits of all exits and of the head [n, exits + 1, classes], the number of the first
    by which an image leaves: int64 [n], from 0 to exits."""
    exits = logits.shape[1] - 1
    certainty = Certainty(rule.criterion, exits)
    leaves = [certainty.after(logits[:, number]) > rule.threshold for number in range(exits)]
    leaves.append(torch.ones_like(logits[:, -1, 0], dtype=torch.bool))
    return torch.stack(leaves, dim=1).int().argmax(1)
