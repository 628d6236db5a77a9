"""One MLP for several blocks: what its hidden units write, by least squares on what blocks do.

Units have no counterparts in another block, and their order does not matter; so MLPs are compared
by what they add to the stream, on random tokens as a LayerNorm gives them out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vitarium.core.seeds import derive
from vitarium.operators.compression._head_fitting import Reading

_TOKENS = 4
"""Tokens to a hidden unit, all blocks together."""
_RIDGE = 1e-3
"""How strongly weights are held at the start, relative to what the units do on the tokens."""


class Units(NamedTuple):
    """Hidden units: what they read [hidden, channels + 1 of bias] and write [hidden, channels].

    shift: what is written beside, [channels].
    """

    read: Tensor
    written: Tensor
    shift: Tensor


class MlpContext(NamedTuple):
    """Where a block has its MLP: behind its norm, and before its layer scale."""

    norm: Reading
    scale: Reading


class Blocks:
    """The units of a group's blocks, and what each block adds to the stream on random tokens."""

    def __init__(
        self, units: Sequence[tuple[Units, MlpContext]], activation: Callable[[Tensor], Tensor]
    ) -> None:
        hidden, channels = units[0][0].written.shape
        self.activation = activation
        generator = torch.Generator().manual_seed(derive(0, "minivit", "tokens"))
        shape = (-(-_TOKENS * hidden // len(units)), channels)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.tokens = torch.nn.functional.layer_norm(drawn, (channels,))
        """As a LayerNorm gives them out before its gain, float64 [tokens, channels]."""
        self.targets = [self.added(self.active(u.read, c), u, c) for u, c in units]
        self.total = sum(target.square().sum().item() for target in self.targets)

    def active(self, read: Tensor, context: MlpContext) -> Tensor:
        """What hidden units give on the tokens, [tokens, hidden]."""
        acting = context.norm.of(read)
        return self.activation(torch.addmm(acting[:, -1], self.tokens, acting[:, :-1].T))

    def added(self, active: Tensor, units: Units, context: MlpContext) -> Tensor:
        """What they then add to the stream, [tokens, channels]."""
        return context.scale.of(active @ units.written + units.shift)


class SharedUnits:
    """Hidden units that all blocks of a group share.

    `error` is the sum of squared distances between what they and the blocks' own units add to the
    stream, over tokens; `improve` lowers it, by what the units write.

    Args:
        contexts: where they are, in each block.
    """

    def __init__(self, blocks: Blocks, contexts: Sequence[MlpContext], start: Units) -> None:
        self.blocks, self.contexts, self.units = blocks, contexts, start
        self._rests = [
            target - blocks.added(blocks.active(start.read, context), start, context)
            for target, context in zip(blocks.targets, contexts, strict=True)
        ]

    @property
    def error(self) -> float:
        """What is left of the blocks' `total`."""
        return sum(rest.square().sum().item() for rest in self._rests)

    def improve(self) -> None:
        """Find what the units shall write."""
        if self.error <= 1e-14 * self.blocks.total:
            return
        start, blocks, contexts = self.units, self.blocks, self.contexts
        hidden, channels = start.written.shape
        normal = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64)
        right_side = torch.zeros(hidden + 1, channels, dtype=torch.float64)
        actives = [blocks.active(start.read, context) for context in contexts]
        for active, rest, context in zip(actives, self._rests, contexts, strict=True):
            scaled = context.scale.of(rest)
            normal[:-1, :-1].addmm_(active.T, active)
            normal[-1, :-1] += active.sum(0)
            normal[-1, -1] += len(active)
            right_side[:-1].addmm_(active.T, scaled)
            right_side[-1] += scaled.sum(0)
        normal[:-1, -1] = normal[-1, :-1]
        normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
        gains = torch.stack([context.scale.gain.square() for context in contexts]).mean(0)
        right_side /= gains.clamp(min=1e-12 * gains.max())
        solution = torch.cholesky_solve(right_side, torch.linalg.cholesky(normal))
        step = Units(start.read, solution[:-1], solution[-1])
        # As far as the error falls: where layer scales differ, the step is but a direction.
        along = [blocks.added(a, step, c) for a, c in zip(actives, contexts, strict=True)]
        gained = sum((a * b).sum().item() for a, b in zip(along, self._rests, strict=True))
        length = gained / sum(change.square().sum().item() for change in along)
        self._rests = [rest - length * a for rest, a in zip(self._rests, along, strict=True)]
        written = start.written + length * step.written
        self.units = Units(start.read, written, start.shift + length * step.shift)
