"""Tensors of a merge that are no weights: buffers, which no operator is given."""

from collections.abc import Sequence
from functools import cached_property, reduce

import torch
from torch import Tensor

from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.evaluation.batch_statistics import is_statistic
from vitarium.evaluation.inputs import Weights


class Buffers:
    """Of models that are to be combined: statistics of batch normalizations, and all others.

    An operator that aligns rearranges a model with its buffers: then only integers are none of its
    matter.
    """

    def __init__(self, models: Sequence[Weights], *, aligns: bool) -> None:
        self._models, self._aligns = models, aligns

    @cached_property
    def names(self) -> set[str]:
        """Of buffers of real numbers that operators are not given."""
        if self._aligns:
            return set()
        first = self._models[0]
        try:
            buffers = {name for name, _ in first.skeleton.named_buffers()}
        except (NotApplicable, InvalidInput):  # nothing builds it: torch's names tell
            buffers = set(filter(is_statistic, first))
        return buffers & first.shapes.keys()

    @cached_property
    def statistics(self) -> list[str]:
        """Names of the statistics that the runner has to see to, counts of batches among them."""
        return [] if self._aligns else list(filter(is_statistic, self._models[0]))

    def copied(self) -> dict[str, Tensor]:
        """Integers, and buffers of which nothing else is known, tensors [*shape] by name.

        Raises IncompatibleWeights where models differ in such a buffer: between them is nothing.
        """
        origin = self._models[-1 if self._aligns else 0]
        names = [name for name in origin if name not in origin.shapes or name in self.names]
        tensors = {name: origin[name] for name in names if name not in self.statistics}
        for name in tensors.keys() & self.names:
            for model in self._models:
                if not torch.equal(model[name], tensors[name]):
                    raise IncompatibleWeights(
                        f"{origin.name} and {model.name} differ in {name}, which is a buffer and "
                        "no weight: what it would be of both is not known"
                    )
        return tensors


def widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The dtype that holds the numbers of all, in whatever order they come."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    wide = [torch.float32 if dtype.itemsize == 1 else dtype for dtype in dtypes]
    return reduce(torch.promote_types, wide)
