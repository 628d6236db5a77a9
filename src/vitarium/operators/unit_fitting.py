"""One MLP for several blocks: what its hidden units write, by least squares on what blocks do.

Units have no counterparts in another block, and their order does not matter; so MLPs are compared
by what they add to the stream, on random tokens as a LayerNorm gives them out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from vitarium.operators.head_fitting import Reading
from vitarium.seeds import derive

_TOKENS = 4
"""Tokens to a hidden unit, all blocks together."""
_RIDGE = 1e-3
"""How strongly weights are held at the start, relative to what the units do on the tokens."""


@dataclass(frozen=True)
class Units:
    """Hidden units: what they read [hidden, channels + 1 of bias] and write [hidden, channels].

    shift: what is written beside, [channels].
    """

    read: Tensor
    written: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Place:
    """Where a block has its MLP: behind its norm, and before its layer scale."""

    norm: Reading
    scale: Reading


class SharedUnits:
    """Hidden units that all blocks of a group share.

    `error` is the sum of squared distances between what they and the blocks' own units add to the
    stream, over tokens; `improve` lowers it, by what the units write.

    Args:
        blocks: each block's own units, and where they are.
        places: where the shared units are, in each block.
        activation: between what is read and what is written.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[Units, Place]],
        places: Sequence[Place],
        start: Units,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        self.blocks, self.places, self.found = blocks, places, start
        self.activation = activation
        count = -(-_TOKENS * len(start.read) // len(blocks))
        self.tokens = _tokens(count, start.written.shape[1])

    @cached_property
    def wanted(self) -> list[Tensor]:
        """What each block adds to the stream, [tokens, channels]."""
        return [self._added(units, place) for units, place in self.blocks]

    @cached_property
    def total(self) -> float:
        """Of what the blocks add, behind the layer scales."""
        return sum(one.square().sum().item() for one in self.wanted)

    def error(self) -> float:
        """What is left of `total`."""
        return sum(rest.square().sum().item() for rest in self._rests())

    def improve(self) -> float:
        """Find what the units shall write; the error."""
        before = self.error()
        if before <= 1e-14 * self.total:
            return before
        kept, hidden = self.found, len(self.found.read)
        normal = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64)
        wanted = torch.zeros(hidden + 1, len(kept.shift), dtype=torch.float64)
        rests = self._rests()
        for rest, place in zip(rests, self.places, strict=True):
            active = self._active(kept.read, place.norm)
            active = torch.cat([active, active.new_ones(len(active), 1)], 1)
            normal.addmm_(active.T, active)
            wanted.addmm_(active.T, place.scale.of(rest))
        normal.diagonal().add_(_RIDGE * normal.diagonal().mean())
        gains = torch.stack([place.scale.gain.square() for place in self.places]).mean(0)
        wanted /= gains.clamp(min=1e-12 * gains.max())
        step = torch.cholesky_solve(wanted, torch.linalg.cholesky(normal))
        # with layer scales that differ among blocks the step is but a direction
        moved = replace(kept, written=step[:-1], shift=step[-1])
        along = [self._added(moved, place) for place in self.places]
        gained = sum((a * b).sum().item() for a, b in zip(along, rests, strict=True))
        length = gained / sum(one.square().sum().item() for one in along)
        self.found = Units(
            kept.read, kept.written + length * moved.written, kept.shift + length * moved.shift
        )
        after = self.error()
        if after > before:  # rounding, where nothing is left to gain
            self.found = kept
        return min(before, after)

    def _rests(self) -> list[Tensor]:
        """By what the shared units miss what each block adds."""
        pairs = zip(self.wanted, self.places, strict=True)
        return [one - self._added(self.found, place) for one, place in pairs]

    def _added(self, units: Units, place: Place) -> Tensor:
        written = self._active(units.read, place.norm) @ units.written + units.shift
        return place.scale.of(written)

    def _active(self, read: Tensor, norm: Reading) -> Tensor:
        acting = norm.of(read)
        return self.activation(torch.addmm(acting[:, -1], self.tokens, acting[:, :-1].T))


def _tokens(count: int, channels: int) -> Tensor:
    """Random tokens as a LayerNorm gives them out before its gain, float64 [count, channels]."""
    generator = torch.Generator().manual_seed(derive(0, "minivit", "tokens"))
    drawn = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return torch.nn.functional.layer_norm(drawn, (channels,))
