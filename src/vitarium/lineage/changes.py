"""What training changed of a parent: ranks of the changes of its matrices, and what else moved.

The rank of a change is the number of singular values of child - parent that stand out of rounding.
Both models' numbers are as exact as their type (bfloat16 or float16 where all numbers of a tensor
are such, else float32), so that each entry has an error of variance spacing^2 / 12 of either model;
in float32, where programs compute products and sums, too, that of four spacings. Values above twice
the largest that such errors have by chance count. Where a part of a change may be lost in rounding,
its rank cannot be told: a counted value lies below four times that largest, or what is left weighs
more than errors do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitarium.adaptations._factors import MATRICES, Part, parts_of
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import counted
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.scope import in_scope
from vitarium.lineage._change_rank import change_rank
from vitarium.lineage._rounding import as_rows, spacing

_SAMPLE = 4096  # numbers of a tensor
_HALF_STEP = 0.501  # the largest error of rounding, and a little for float64's own

Kind = Literal[
    "none", "head", "biases", "norms", "vectors", "low_rank", "low_rank_and_full", "layers", "full",
    "unclear",
]  # fmt: skip
"""What changed beside the head: nothing; biases; parameters of normalization layers; others that
are no matrices; matrices, all by low rank (LoRA), or some of them fully (ExPLoRA); some matrices
fully, or all; or rounding hides it."""

_TEXTS: Mapping[Kind, str] = {
    "none": "nothing",
    "head": "head only",
    "biases": "biases",
    "norms": "norms",
    "vectors": "no matrix",
    "low_rank": "low rank",
    "low_rank_and_full": "low rank",
    "layers": "full",
    "full": "full",
    "unclear": "cannot tell",
}
_BLOCK = re.compile(r"(?P<block>(?:.*\.)?(?:blocks|layers|layer)\.\d+)\.(?P<layer>.+)")


class MatrixChange(NamedTuple):
    """The change of a matrix; queries, keys and values of a fused layer are three."""

    layer: str
    """Dotted name of the layer, e.g. "blocks.0.attn.qkv"."""
    matrix: str
    """Which of it, or of its block: q, k, v, proj, fc1, fc2, or the layer's name in the block."""
    block: str
    """Dotted name of its block; "" outside of all."""
    rank: int | None
    """Of a low one; None: full, or hidden by rounding."""
    is_clear: bool = True
    """Whether rounding does not hide it."""


@dataclass(frozen=True)
class Change:
    """What training changed of a parent; as a text, the verdict: "low rank (r <= 8 in q, v of all
    blocks)"."""

    kind: Kind
    matrices: Sequence[MatrixChange]
    """Those that changed, in the model's order, heads left out."""
    others: Sequence[str]
    """Names of other tensors that changed: biases, norms, tokens, and those of another shape."""
    blocks: Sequence[str] = ()
    """Dotted names of all blocks of the model."""
    added: Sequence[str] = ()
    """Names of tensors, heads left out, that the parent does not have: prompts, adapters."""

    @property
    def ranks(self) -> dict[tuple[str, str], int | None]:
        """By layer and matrix; None where the rank is full, or hidden by rounding."""
        return {(change.layer, change.matrix): change.rank for change in self.matrices}

    def __str__(self) -> str:
        if not self.added:
            return self._of_common()
        count = counted(len(self.added), "tensor")
        return f"{self._of_common()}, and {count} added"

    def _of_common(self) -> str:
        low = [change for change in self.matrices if change.rank is not None]
        full = [change for change in self.matrices if change.rank is None and change.is_clear]
        text = _TEXTS[self.kind]
        if self.kind == "unclear":
            hidden = sum(not change.is_clear for change in self.matrices)
            return f"{text}: rounding hides the rank of {hidden} of {len(self.matrices)} matrices"
        if low and self.kind != "full":
            text += f" (r <= {max(change.rank or 0 for change in low)} in {self._places(low)})"
        if full and self.kind == "low_rank_and_full":
            text += f", and full in {self._places(full)}"
        return f"{text} in {self._places(full)}" if self.kind == "layers" else text

    def _places(self, changes: Sequence[MatrixChange]) -> str:
        """The matrices, and in which blocks: "q, v of all blocks", "patch_embed.proj"."""
        inside = [change for change in changes if change.block]
        names = ", ".join(sorted({change.matrix for change in inside}, key=_order))
        blocks = sorted({change.block for change in inside}, key=_by_number)
        where = "all blocks" if len(blocks) == len(self.blocks) else _numbered(blocks)
        outside = sorted({change.layer for change in changes if not change.block})
        return ", ".join(filter(None, [f"{names} of {where}" if inside else "", *outside]))


def describe_change(parent: Mapping[str, Tensor], child: Mapping[str, Tensor]) -> Change:
    """What training changed, of weights [*shape] by name: of a zoo's models, or of any files.

        str(describe_change(zoo.state_dict(parent), zoo.state_dict(child)))

    Heads are left out, by the model's architecture where they are `Weights` that know it, else by
    their usual names. A difference that is rounding alone is none.

    Raises InvalidInput where no tensor of both has the same name and shape beside heads, and for
    numbers that are not finite.
    """
    before, after = _as_weights("the parent", parent), _as_weights("the child", child)
    names = list(in_scope(after, "trunk"))
    trunk = [name for name in names if name in before.shapes]
    added = [name for name in names if name not in before.shapes]
    common = [name for name in trunk if before.shapes[name] == after.shapes[name]]
    if not common:
        raise InvalidInput(f"{before.name} and {after.name} have no tensors in common beside heads")
    reshaped = [name for name in trunk if before.shapes[name] != after.shapes[name]]
    changes, others = list[MatrixChange](), list[str]()
    for name in common:
        rows = tuple(_finite_rows(model, name) for model in (before, after))
        if _is_rounding(*rows):
            continue
        if _is_matrix(name, after.shapes[name]):
            changes += _matrix_changes(name, *rows)
        else:
            others.append(name)
    matrices = [n for n in common if _is_matrix(n, after.shapes[n])]
    blocks = [match["block"] for name in matrices if (match := _BLOCK.match(name))]
    kind = _kind(changes, [*others, *reshaped], matrices, _head_changed(before, after))
    return Change(kind, changes, [*others, *reshaped], list(dict.fromkeys(blocks)), added)


def _kind(
    changes: Sequence[MatrixChange], others: Sequence[str], matrices: Sequence[str], head: bool
) -> Kind:
    if not changes and not others:
        return "head" if head else "none"
    if not changes:
        return _kind_of_vectors(others)
    low = [change for change in changes if change.rank is not None]
    hidden = [change for change in changes if not change.is_clear]
    if len(low) == len(changes):
        return "low_rank"
    if hidden and (low or len(hidden) == len(changes)):
        return "unclear"
    if low:
        return "low_rank_and_full"
    return "full" if {f"{c.layer}.weight" for c in changes} == set(matrices) else "layers"


def _kind_of_vectors(names: Sequence[str]) -> Kind:
    if all("norm" in name.rpartition(".")[0].rpartition(".")[2] for name in names):
        return "norms"
    return "biases" if all(name.endswith("bias") for name in names) else "vectors"


def _matrix_changes(name: str, before: np.ndarray, after: np.ndarray) -> Iterator[MatrixChange]:
    """Of one tensor's matrices, as rows [out, in], those that changed."""
    layer = name.removesuffix(".weight")
    match = _BLOCK.match(layer)
    block, inside = (match["block"], match["layer"]) if match else ("", layer)
    parts = parts_of(layer, len(after)) if match else []
    for part in parts or [Part(inside, 0, len(after))]:
        old, new = (rows[part.start : part.stop] for rows in (before, after))
        if not _is_rounding(old, new):
            rank, is_clear = change_rank(old, new)
            yield MatrixChange(layer, part.matrix, block, rank, is_clear)


def _is_rounding(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether one model's numbers [rows, columns] are the other's, rounded."""
    if np.array_equal(before, after):
        return True
    if before.size > _SAMPLE:  # which tells most pairs apart in no time
        sample = (rows.flat[:_SAMPLE].reshape(1, -1) for rows in (before, after))
        if not _is_rounding(*sample):
            return False
    steps = spacing(before, torch.float32) + spacing(after, torch.float32)
    if (np.abs(after - before) <= _HALF_STEP * steps).all():
        return True
    pair = torch.from_numpy(before), torch.from_numpy(after)
    return any(
        torch.equal(exact.to(dtype).double(), rounded)
        for dtype in (torch.bfloat16, torch.float16)
        for exact, rounded in (pair, pair[::-1])
    )


def _is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether it is the weight of a linear layer or a convolution."""
    return name.endswith("weight") and len(shape) > 1 and shape[0] > 1


def _head_changed(before: Weights, after: Weights) -> bool:
    heads = set(after.shapes) - set(in_scope(after, "trunk"))
    return any(n not in before.shapes or not torch.equal(before[n], after[n]) for n in heads)


def _finite_rows(model: Weights, name: str) -> np.ndarray:
    """[rows, columns]"""
    rows = as_rows(model[name])
    if not np.isfinite(rows).all():
        raise InvalidInput(f"{model.name}: {name} has numbers that are not finite")
    return rows


def _as_weights(name: str, tensors: Mapping[str, Tensor]) -> Weights:
    return tensors if isinstance(tensors, Weights) else Weights(name, tensors)


def _order(matrix: str) -> tuple[int, str]:
    """As they follow each other in a block."""
    return MATRICES.index(matrix) if matrix in MATRICES else len(MATRICES), matrix


def _by_number(block: str) -> list[tuple[int, str]]:
    """Of a dotted name: blocks.2 comes before blocks.10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in block.split(".")]


def _numbered(blocks: Iterable[str]) -> str:
    """blocks.0, blocks.1 -> blocks 0, 1"""
    stacks: dict[str, list[str]] = {}
    for block in blocks:
        stack, _, number = block.rpartition(".")
        stacks.setdefault(stack, []).append(number)
    return ", ".join(f"{stack} {', '.join(numbers)}" for stack, numbers in stacks.items())
