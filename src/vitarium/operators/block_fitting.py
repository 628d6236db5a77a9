"""The shared weights nearest to what all blocks of a group do: their heads, and their MLPs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.operators import unit_fitting
from vitarium.operators.head_fitting import Reading, SharedForms, Side, forms
from vitarium.operators.unit_fitting import SharedUnits, Units

Parts = dict[str, Tensor]
"""A block's tensors: `norm1.weight`, `attn.qkv.weight`, ..."""
_TOLERANCE = 1e-3
_SWEEPS = 12


@dataclass(frozen=True)
class FittedBlocks:
    """What a group's blocks share, and what each has of its own; float64."""

    shared: Parts
    own: list[Parts]
    errors: dict[str, float]
    """Squared error relative to what the blocks do: `logits`, `values` and `units`."""


def fitted(
    blocks: Sequence[Parts],
    starts: Sequence[Parts],
    *,
    num_heads: int,
    mix_before: bool = True,
    mix_after: bool = True,
    own_norms: bool = True,
) -> FittedBlocks:
    """Shared weights and what goes with them, at most as far from the blocks as any of the starts.

    Args:
        starts: shared weights to begin with, norms included; the best one is taken.
        own_norms: whether each block has norms of its own; else all have those of the start.
    """
    blocks = [_doubles(block) for block in blocks]
    starts = [_doubles(start) for start in starts]
    heads = min(
        (
            _Heads(targets, start, num_heads, (mix_before, mix_after), own_norms)
            for start in starts
            for targets in (blocks, _aligned(blocks, start, num_heads))
        ),
        key=lambda one: one.error,
    )
    errors = heads.improve()
    units, errors["units"] = _units(blocks, starts, own_norms)
    own = [
        {name: tensor for name, tensor in block.items() if name.startswith("ls")}
        for block in blocks
    ]
    shared = heads.weights() | {
        "mlp.fc1.weight": units.read[:, : len(blocks[0]["norm2.weight"])],
        "mlp.fc1.bias": units.read[:, -1],
        "mlp.fc2.weight": units.written.T,
        "mlp.fc2.bias": _bias(blocks, "ls2", "mlp.fc2.bias"),
    }
    for number, (block, parts) in enumerate(zip(blocks, own, strict=True)):
        if own_norms:
            norm2 = units.norms[number]
            parts |= {name: block[name] for name in ("norm1.weight", "norm1.bias")}
            parts |= {"norm2.weight": norm2.gain, "norm2.bias": norm2.shift}
        if mix_before:
            parts["attn.before.weight"] = heads.logits.mixing[number]
        if mix_after:
            parts["attn.after.weight"] = heads.values.mixing[number].T.contiguous()
    if not own_norms:
        shared |= {name: tensor for name, tensor in heads.start.items() if name.startswith("norm")}
    return FittedBlocks(shared, own, errors)


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
        self.blocks, self.start = blocks, start
        norms = [_norm(block, "norm1", bias="attn.qkv.bias" in start) for block in blocks]
        seen = norms if own_norms else [_norm(start, "norm1", bias=norms[0].bias)] * len(blocks)
        scales = [_scale(block, "ls1") for block in blocks]
        targets = [_factors(block) for block in blocks]
        starts = _factors(start)
        unshifted = [Reading(norm.gain) for norm in norms], [Reading(norm.gain) for norm in seen]
        as_they_act = [norms, unshifted[0], norms, scales]
        read = [seen, unshifted[1], seen, scales]
        sides = [
            Side(
                [reading.of(one[place]) for reading, one in zip(acts, targets, strict=True)],
                read[place],
            )
            for place, acts in enumerate(as_they_act)
        ]
        self.logits = SharedForms(
            sides[0], sides[1], (starts[0], starts[1]), num_heads=num_heads, mixes=mixes[0]
        )
        self.values = SharedForms(
            sides[2], sides[3], (starts[2], starts[3]), num_heads=num_heads, mixes=mixes[1]
        )

    @property
    def error(self) -> float:
        """Of both together, before anything is fitted."""
        return self.logits.error() / self.logits.total + self.values.error() / self.values.total

    def improve(self) -> dict[str, float]:
        """Fit both; their relative errors."""
        both = {"logits": self.logits, "values": self.values}
        return {name: one.improve(_TOLERANCE, _SWEEPS) / one.total for name, one in both.items()}

    def weights(self) -> Parts:
        (queries, keys), (values, written) = self.logits.shared, self.values.shared
        channels = written.shape[1]
        found = {
            "attn.qkv.weight": torch.cat([queries[:, :channels], keys, values[:, :channels]]),
            "attn.proj.weight": written.T.contiguous(),
            "attn.proj.bias": _bias(self.blocks, "ls1", "attn.proj.bias"),
        }
        if "attn.qkv.bias" in self.start:
            _, bias, _ = self.start["attn.qkv.bias"].chunk(3)
            found["attn.qkv.bias"] = torch.cat([queries[:, -1], bias, values[:, -1]])
        return found


def _units(
    blocks: Sequence[Parts], starts: Sequence[Parts], own_norms: bool
) -> tuple[SharedUnits, float]:
    """The MLP of a group, and its relative error."""
    norms = tuple(_norm(block, "norm2", bias=True) for block in blocks)
    scales = tuple(_scale(block, "ls2") for block in blocks)
    targets = [
        Units(norm.of(_read(block)), scale.of(block["mlp.fc2.weight"].T))
        for block, norm, scale in zip(blocks, norms, scales, strict=True)
    ]
    begun = [
        SharedUnits(
            _read(start),
            start["mlp.fc2.weight"].T,
            norms if own_norms else (_norm(start, "norm2", bias=True),) * len(blocks),
            scales,
        )
        for start in starts
    ]
    return unit_fitting.fitted(
        targets, begun, own_norms=own_norms, tolerance=_TOLERANCE, most=_SWEEPS
    )


def _read(block: Parts) -> Tensor:
    return torch.cat([block["mlp.fc1.weight"], block["mlp.fc1.bias"][:, None]], 1)


def _factors(block: Parts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries and values (with their bias as a column), keys, and the projection's columns."""
    query, key, value = block["attn.qkv.weight"].chunk(3)
    if "attn.qkv.bias" in block:
        shifts = block["attn.qkv.bias"][:, None].chunk(3)
        query, value = torch.cat([query, shifts[0]], 1), torch.cat([value, shifts[2]], 1)
    return query, key, value, block["attn.proj.weight"].T


def _aligned(blocks: Sequence[Parts], start: Parts, num_heads: int) -> list[Parts]:
    """The blocks with their heads in the order in which they are most like the start's."""
    norms = [_norm(block, "norm1", bias="attn.qkv.bias" in start) for block in blocks]
    found = []
    for block, norm in zip(blocks, norms, strict=True):
        plain, scale = Reading(norm.gain), _scale(block, "ls1")
        readings = (norm, plain, norm, scale)
        acts, like = (
            [reading.of(one) for reading, one in zip(readings, _factors(parts), strict=True)]
            for parts in (block, start)
        )
        worth = sum(
            forms(like[at], acts[at], like[at + 1], acts[at + 1], num_heads)
            / forms(acts[at], acts[at], acts[at + 1], acts[at + 1], num_heads).trace()
            for at in (0, 2)
        )
        _, order = linear_sum_assignment(worth.numpy(), maximize=True)
        found.append(_in_order(block, torch.from_numpy(order)))
    return found


def _in_order(block: Parts, heads: Tensor) -> Parts:
    """The same block with its heads in another order."""
    count = len(heads)
    rows = {
        name: block[name].unflatten(0, (3, count, -1))[:, heads].flatten(0, 2)
        for name in ("attn.qkv.weight", "attn.qkv.bias")
        if name in block
    }
    columns = block["attn.proj.weight"].unflatten(1, (count, -1))[:, heads].flatten(1)
    return block | rows | {"attn.proj.weight": columns}


def _bias(blocks: Sequence[Parts], scale: str, name: str) -> Tensor:
    """The one bias nearest to all, behind the layer scales."""
    gains = torch.stack([_scale(block, scale).gain for block in blocks]).square()
    biases = torch.stack([block[name] for block in blocks])
    total = gains.sum(0)
    weighted = (gains * biases).sum(0) / total.clamp(min=torch.finfo(total.dtype).tiny)
    return torch.where(total > 0, weighted, biases.mean(0))


def _norm(block: Parts, name: str, *, bias: bool) -> Reading:
    return Reading(block[f"{name}.weight"], block[f"{name}.bias"], bias)


def _scale(block: Parts, name: str) -> Reading:
    like = torch.ones_like(block["norm1.weight"])
    return Reading(block.get(f"{name}.gamma", like))


def _doubles(block: Parts) -> Parts:
    return {name: tensor.double() for name, tensor in block.items()}
