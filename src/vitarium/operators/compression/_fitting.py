"""One set of weights for several blocks, nearest to what the heads and MLPs of every block compute.

A head compares tokens by a form, its queries' matrix times its keys', and adds to the stream by
another, its values' times the projection's. Mixing the heads of shared matrices gives a block sums
of shared forms, so the forms count, not the factors: these may be rotated, and heads permuted.

Hidden units have no counterparts in another block, and their order does not matter; so MLPs are
compared by what they add to the stream, on random tokens as a LayerNorm gives them out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitarium.core.seeds import derive

Activation = Callable[[Tensor], Tensor]
_STEPS = 4
"""Of conjugate gradients in one update: those of trained models change little after."""
_TOKENS = 4
"""Tokens to a hidden unit, all blocks together."""
_RIDGE = 1e-3
"""How strongly weights are held at the start, relative to what the units do on the tokens."""


@dataclass(frozen=True)
class Reading:
    """How shared rows act on a block's normalized tokens: behind its LayerNorm's gain and shift.

    shared [rows, channels], and with bias one column more -> [rows, channels], and with a shift one
    more, that of the constant. Also for what is written: then the gain is a layer scale.
    """

    gain: Tensor
    shift: Tensor | None = None
    bias: bool = False

    def of(self, shared: Tensor) -> Tensor:
        """[rows, channels (+ 1)] -> [rows, channels (+ 1)], as they act."""
        if self.shift is None:
            return shared * self.gain
        weight = shared[:, : len(self.gain)]
        constant = weight @ self.shift
        if self.bias:
            constant = constant + shared[:, -1]
        return torch.cat([weight * self.gain, constant[:, None]], 1)

    def adjoint(self, acting: Tensor) -> Tensor:
        """The transposed map, [rows, channels (+ 1)] -> [rows, channels (+ 1)]."""
        if self.shift is None:
            return acting * self.gain
        constant = acting[:, -1:]
        weight = acting[:, :-1] * self.gain + constant * self.shift
        return torch.cat([weight, constant], 1) if self.bias else weight


class Side(NamedTuple):
    """The left or the right factors of forms.

    targets: of each block [heads * head_dim, columns], as they act. readings: of each block.
    """

    targets: Sequence[Tensor]
    readings: Sequence[Reading]


class SharedForms:
    """Factors of forms that all blocks of a group share, and each block's mixing of the heads.

    Form a of a block is sum_h mixing[a, h] left[h]^T right[h]; error is the sum of its squared
    distances from the targets' forms, which `improve` lowers by alternating least squares.

    Args:
        start: shared factors, left and right, [heads * head_dim, columns].
        mixes: whether the mixing is fitted; else it stays the identity.
    """

    def __init__(
        self, left: Side, right: Side, start: tuple[Tensor, Tensor], *, num_heads: int, mixes: bool
    ) -> None:
        self.sides, self.shared = (left, right), list(start)
        self.num_heads, self.mixes = num_heads, mixes
        eye = torch.eye(num_heads, dtype=start[0].dtype)
        self.mixing = [eye.clone() for _ in left.targets]
        pairs = zip(left.targets, right.targets, strict=True)
        self.total = sum(forms(a, a, b, b, num_heads).diagonal().sum().item() for a, b in pairs)
        """Squared norm of all targets."""

    def error(self) -> float:
        """What is left of `total`."""
        return self._mix(fit=False)

    def improve(self, tolerance: float, sweeps: int) -> float:
        """Sweep until the error falls by less than this share of the total; the error."""
        error = self._mix(fit=self.mixes)
        for _ in range(sweeps):
            before, earlier = error, (list(self.shared), list(self.mixing))
            if before <= 1e-14 * self.total:
                break
            for side in (0, 1):
                self.shared[side] = self._solved(side)
            error = self._mix(fit=self.mixes)
            if error > before:  # rounding, where nothing is left to gain
                self.shared, self.mixing = earlier
                return before
            if before - error < tolerance * self.total:
                break
        return error

    def _mix(self, *, fit: bool) -> float:
        """Fit each block's mixing, or leave it; the error."""
        error = self.total
        for block in range(len(self.mixing)):
            left, right = (self._acting(side, block) for side in (0, 1))
            targets = [side.targets[block] for side in self.sides]
            gram = forms(left, left, right, right, self.num_heads)
            cross = forms(targets[0], left, targets[1], right, self.num_heads)
            if fit:
                inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
                self.mixing[block] = cross @ inverse
            mixing = self.mixing[block]
            error += ((mixing @ gram - 2 * cross) * mixing).sum().item()
        return max(error, 0.0)

    def _acting(self, side: int, block: int) -> Tensor:
        return self.sides[side].readings[block].of(self.shared[side])

    def _solved(self, side: int) -> Tensor:
        """The shared factors of a side, given the other's: preconditioned conjugate gradients."""
        this, opposite = self.sides[side], self.sides[1 - side]
        dim = len(self.shared[side]) // self.num_heads
        ones = torch.ones(dim, dim, dtype=self.shared[side].dtype)
        grams, right = [], torch.zeros_like(self.shared[side])
        mean = ones.new_zeros(len(right), len(right))
        for block, (reading, mixing) in enumerate(zip(this.readings, self.mixing, strict=True)):
            acting = self._acting(1 - side, block)
            grams.append((acting @ acting.T).mul_(torch.kron(mixing.T @ mixing, ones)))
            cross = acting @ opposite.targets[block].T
            cross.mul_(torch.kron(mixing.T.contiguous(), ones))
            right += reading.adjoint(cross @ this.targets[block])
            mean += grams[-1] * reading.gain.square().mean()
        ridge = 1e-10 * mean.diagonal().mean() + torch.finfo(ones.dtype).tiny
        factor = torch.linalg.cholesky(mean + ridge * torch.eye(len(mean), dtype=ones.dtype))

        def normal(shared: Tensor) -> Tensor:
            pairs = zip(grams, this.readings, strict=True)
            return sum((r.adjoint(gram @ r.of(shared)) for gram, r in pairs), 0 * shared)

        factors = self.shared[side]
        residual = right - normal(factors)
        step, slope = torch.zeros_like(factors), 0.0
        for _ in range(_STEPS):
            scaled = torch.cholesky_solve(residual, factor)
            earlier, slope = slope, (residual * scaled).sum().item()
            step = scaled + step * (slope / earlier) if earlier else scaled
            bent = normal(step)
            curve = (step * bent).sum().item()
            if curve <= 0 or slope <= 0:
                break
            factors = factors + step * (slope / curve)
            residual = residual - bent * (slope / curve)
        return factors


def forms(left_a: Tensor, left_b: Tensor, right_a: Tensor, right_b: Tensor, heads: int) -> Tensor:
    """Inner products of forms left_a^T right_a and left_b^T right_b, [heads, heads]."""
    products = (left_a @ left_b.T).mul_(right_a @ right_b.T)
    return products.view(heads, -1, heads, len(left_b) // heads).sum((1, 3))


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

    def __init__(self, units: Sequence[tuple[Units, MlpContext]], activation: Activation) -> None:
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
