"""The shared weights nearest to what all blocks of a group do: their heads, and their MLPs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.operators.base import in_float64
from vitarium.operators.compression._fitting import (
    Activation,
    Blocks,
    MlpContext,
    Reading,
    SharedForms,
    SharedUnits,
    Side,
    Units,
    forms,
)

Parts = dict[str, Tensor]
"""A block's tensors: `norm1.weight`, `attn.qkv.weight`, ..."""
_TABLE = "attn.relative_position_bias_table"
"""Swin's, mixed like the logits."""
_TOLERANCE = 1e-3
"""Share of what the blocks do by which a sweep has to come nearer, or it was the last."""
_SWEEPS = 8


@dataclass(frozen=True)
class FittedBlocks:
    """What a group's blocks share, and what each has of its own; float64."""

    shared: Parts
    per_block: list[Parts]
    errors: dict[str, float]
    """Squared error relative to what the blocks do: `logits` and `values` of the attention, and
    `mlp`."""


def fitted(
    blocks: Sequence[Parts],
    starts: Sequence[Parts],
    *,
    num_heads: int,
    activation: Activation,
    mix_before: bool = True,
    mix_after: bool = True,
    own_norms: bool = True,
) -> FittedBlocks:
    """Shared weights, and what goes with them, at most as far from the blocks as any of the starts.

    All tensors have the blocks' shapes [*shape]; float64.

    Args:
        starts: shared weights to begin with, norms included.
        activation: of the MLPs.
        own_norms: whether each block has norms of its own; else all have a start's.
    """
    blocks = [in_float64(block) for block in blocks]
    starts = [in_float64(start) for start in starts]
    mixes = (mix_before, mix_after)
    tried = [_Heads(blocks, start, num_heads, mixes, own_norms) for start in starts]
    heads = min(tried, key=lambda candidate: sum(candidate.errors().values()))
    for fit in (heads.logits, heads.values):
        fit.improve(_TOLERANCE, _SWEEPS)
    units = _units(blocks, starts, activation, own_norms)
    shared = heads.weights() | {
        "mlp.fc1.weight": units.units.read[:, :-1],
        "mlp.fc1.bias": units.units.read[:, -1],
        "mlp.fc2.weight": units.units.written.T,
        "mlp.fc2.bias": units.units.shift,
    }
    prefixes = ("norm", "ls") if own_norms else ("ls",)
    per_block = [{n: block[n] for n in block if n.startswith(prefixes)} for block in blocks]
    for number, parts in enumerate(per_block):
        if mix_before:
            parts["attn.before.weight"] = heads.logits.mixing[number]
        if mix_after:
            parts["attn.after.weight"] = heads.values.mixing[number].T
    if not own_norms:
        norm = units.contexts[0].norm
        assert norm.shift is not None  # a LayerNorm's
        shared |= {n: heads.start[n] for n in ("norm1.weight", "norm1.bias")}
        shared |= {"norm2.weight": norm.gain, "norm2.bias": norm.shift}
    errors = heads.errors() | {"mlp": _relative(units.error, units.blocks.total)}
    return FittedBlocks(shared, per_block, errors)


class _Heads:
    """The attention of a group: forms of logits, and of what is added to the stream.

    A bias of keys adds the same to all logits of a row, which the softmax does not see.
    """

    def __init__(
        self,
        blocks: Sequence[Parts],
        start: Parts,
        num_heads: int,
        mixes: tuple[bool, bool],
        own_norms: bool,
    ) -> None:
        self.start = start
        bias = "attn.qkv.bias" in start
        norms = [_norm(block, "norm1", bias=bias) for block in blocks]
        shared = norms if own_norms else [_norm(start, "norm1", bias=bias)] * len(blocks)
        scales = [_scale(block, "ls1") for block in blocks]
        acting = [_factors(*how) for how in zip(blocks, norms, scales, strict=True)]
        like = [_factors(start, *how) for how in zip(shared, scales, strict=True)]
        orders = _orders(acting, like, num_heads)
        self.blocks = [_in_order(b, order) for b, order in zip(blocks, orders, strict=True)]
        ordered = [_factors(*how) for how in zip(self.blocks, norms, scales, strict=True)]
        queries, keys, values, written = (list(parts) for parts in zip(*ordered, strict=True))
        gains = [Reading(norm.gain) for norm in shared]
        starts = _raw(start)
        logits = Side(queries, shared), Side(keys, gains)
        outputs = Side(values, shared), Side(written, scales)
        self.logits = SharedForms(*logits, starts[:2], num_heads=num_heads, mixes=mixes[0])
        self.values = SharedForms(*outputs, starts[2:], num_heads=num_heads, mixes=mixes[1])

    def errors(self) -> dict[str, float]:
        fits = {"logits": self.logits, "values": self.values}
        return {name: _relative(fit.error(), fit.total) for name, fit in fits.items()}

    def weights(self) -> Parts:
        (queries, keys), (values, written) = self.logits.shared, self.values.shared
        channels = written.shape[1]
        # the one bias nearest to all, behind the layer scales
        gains = torch.stack([_scale(block, "ls1").gain for block in self.blocks]).square()
        biases = torch.stack([block["attn.proj.bias"] for block in self.blocks])
        total = gains.sum(0)
        weighted = (gains * biases).sum(0) / total.clamp(min=torch.finfo(total.dtype).tiny)
        tensors = {
            "attn.qkv.weight": torch.cat([queries[:, :channels], keys, values[:, :channels]]),
            "attn.proj.weight": written.T.contiguous(),
            "attn.proj.bias": torch.where(total > 0, weighted, biases.mean(0)),
        }
        if "attn.qkv.bias" in self.start:
            _, bias, _ = self.start["attn.qkv.bias"].chunk(3)
            tensors["attn.qkv.bias"] = torch.cat([queries[:, -1], bias, values[:, -1]])
        if _TABLE in self.start:  # the one whose mixtures are nearest to the blocks' own
            mixing = torch.stack(self.logits.mixing)
            targets = torch.stack([block[_TABLE] for block in self.blocks])
            inverse = torch.linalg.pinv((mixing.mT @ mixing).sum(0), hermitian=True)
            tensors[_TABLE] = (targets @ mixing).sum(0) @ inverse
        return tensors


def _units(
    blocks: Sequence[Parts], starts: Sequence[Parts], activation: Activation, own_norms: bool
) -> SharedUnits:
    """The MLP of a group: from the first start, unless what that leads to is worse than another."""
    targets = Blocks([(_mlp(block), _context(block, block)) for block in blocks], activation)
    candidates = []
    for start in starts:
        contexts = [_context(block, block if own_norms else start) for block in blocks]
        candidates.append(SharedUnits(targets, contexts, _mlp(start)))
    first, *rest = candidates
    first.improve()
    for candidate in rest:
        if candidate.error < first.error:
            candidate.improve()
            return candidate
    return first


def _mlp(block: Parts) -> Units:
    read = torch.cat([block["mlp.fc1.weight"], block["mlp.fc1.bias"][:, None]], 1)
    return Units(read, block["mlp.fc2.weight"].T, block["mlp.fc2.bias"])


def _context(block: Parts, normed: Parts) -> MlpContext:
    return MlpContext(_norm(normed, "norm2", bias=True), _scale(block, "ls2"))


Factors = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of queries, keys, values (queries and values with a column more), and the projection's columns,
[heads * head_dim, channels]."""


def _raw(block: Parts) -> Factors:
    """The column more is the bias, where there is one."""
    query, key, value = block["attn.qkv.weight"].chunk(3)
    if "attn.qkv.bias" in block:
        shifts = block["attn.qkv.bias"][:, None].chunk(3)
        query, value = torch.cat([query, shifts[0]], 1), torch.cat([value, shifts[2]], 1)
    return query, key, value, block["attn.proj.weight"].T


def _factors(block: Parts, norm: Reading, scale: Reading) -> Factors:
    """As they act on normalized tokens, and on the stream; the column more is the constant."""
    query, key, value, written = _raw(block)
    return norm.of(query), Reading(norm.gain).of(key), norm.of(value), scale.of(written)


def _orders(blocks: Sequence[Factors], like: Sequence[Factors], num_heads: int) -> list[Tensor]:
    """The order of each block's heads in which they are nearest to those that it would be given."""
    worths = torch.zeros(len(blocks), num_heads, num_heads, dtype=torch.float64)
    for at in (0, 2):
        pairs = [(b[at : at + 2], r[at : at + 2]) for b, r in zip(blocks, like, strict=True)]
        total = sum(forms(a, a, b, b, num_heads).trace().item() for (a, b), _ in pairs)
        for worth, ((a, b), (left, right)) in zip(worths, pairs, strict=True):
            worth += forms(left, a, right, b, num_heads) / (total or 1)
    orders = [linear_sum_assignment(worth.numpy(), maximize=True)[1] for worth in worths]
    return [torch.from_numpy(order) for order in orders]


def _in_order(block: Parts, heads: Tensor) -> Parts:
    """The same block with its heads in another order."""
    ordered = dict(block)
    for name in ("attn.qkv.weight", "attn.qkv.bias"):
        if name in block:
            parts = block[name].unflatten(0, (3, len(heads), -1))
            ordered[name] = parts[:, heads].flatten(0, 2)
    columns = block["attn.proj.weight"].unflatten(1, (len(heads), -1))
    ordered["attn.proj.weight"] = columns[:, heads].flatten(1)
    if _TABLE in block:
        ordered[_TABLE] = block[_TABLE][:, heads]
    return ordered


def _norm(block: Parts, name: str, *, bias: bool) -> Reading:
    return Reading(block[f"{name}.weight"], block[f"{name}.bias"], bias)


def _scale(block: Parts, name: str) -> Reading:
    return Reading(block.get(f"{name}.gamma", torch.ones_like(block["norm1.weight"])))


def _relative(error: float, total: float) -> float:
    """Blocks that do nothing are met exactly."""
    return error / total if total else 0.0
