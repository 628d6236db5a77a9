"""Which weights of a matrix stay: so many of a row, of the matrix, or n of every m inputs."""

from collections.abc import Iterator, Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.operators.base import Ingredients, NamedTensors, checked

_DENSITY = 0.5


class Sparsity(Config):
    """How many weights of the linear layers inside of the blocks stay."""

    density: float | None = Field(None, gt=0, le=1)
    """Share of each matrix's weights that stay, above 0 and at most 1; null: 0.5, or what the
    pattern leaves."""
    pattern: str | None = Field(None, pattern=r"^[1-9]\d*:[1-9]\d*$")
    """`N:M`: of every M consecutive inputs of a row N weights stay, as `2:4`, which GPUs
    with sparse tensor cores compute faster; null: none."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.group is None:
            return self
        if self.density is not None:
            raise ValueError(f"density follows from the pattern {self.pattern}; leave it out")
        if self.group[0] > self.group[1]:
            raise ValueError(f"pattern {self.pattern}: no more than M of M weights can stay")
        return self

    @property
    def group(self) -> tuple[int, int] | None:
        """(N, M) of the pattern."""
        if self.pattern is None:
            return None
        count, size = self.pattern.split(":")
        return int(count), int(size)

    @property
    def share(self) -> float:
        """Of the weights that stay."""
        if self.group:
            return self.group[0] / self.group[1]
        return _DENSITY if self.density is None else self.density

    def check_inputs(self, name: str, in_features: int) -> None:
        """Raises IncompatibleWeights where the pattern does not divide a layer's inputs."""
        if self.group and in_features % self.group[1]:
            raise IncompatibleWeights(
                f"{name} has {in_features} inputs, no multiple of the {self.group[1]} of pattern "
                f"{self.pattern}; choose a pattern that divides them, or a density"
            )

    def mask_rows(self, scores: Tensor) -> Tensor:
        """Scores [out, in] -> what stays, bool [out, in]: as many of each row, or of each run of
        its inputs, those with the largest scores; of equal ones the last."""
        if not self.group:
            return largest(scores, self.share)
        runs = scores.reshape(-1, self.group[1])
        return largest(runs, self.share).reshape(scores.shape)

    def mask_matrix(self, scores: Tensor) -> Tensor:
        """Scores [out, in] -> what stays, bool [out, in]: the largest of the whole matrix, or those
        of the pattern."""
        if self.group:
            return self.mask_rows(scores)
        return largest(scores.reshape(1, -1), self.share).reshape(scores.shape)


def largest(scores: Tensor, share: float) -> Tensor:
    """Scores [n, size] -> bool [n, size]: round(share * size) of each row, at least one, are
    true."""
    size = scores.shape[1]
    dropped = size - max(round(share * size), 1)
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, order[:, :dropped], False)


def with_pruned(ingredients: Ingredients, pruned: Mapping[str, Tensor]) -> NamedTensors:
    """All tensors [*shape] of the model, the pruned ones in place of its own; logs the sparsity.

    Raises IncompatibleWeights where no weight was removed that was not zero before.
    """
    (model,) = ingredients
    zeros = sum(int((tensor == 0).sum()) for tensor in pruned.values())
    total = sum(tensor.numel() for tensor in pruned.values())
    before = sum(int((checked(model, name) == 0).sum()) for name in pruned)
    if before and before >= zeros:
        raise IncompatibleWeights(
            f"{model.name} is as sparse already: {before:,} of the {total:,} weights in its blocks "
            "are zero; give a lower density"
        )
    ingredients.log.metrics["sparsity"] = zeros / total
    ingredients.log.lines.append("; ".join(_by_kind(pruned)))
    for name in ingredients.shapes:
        yield name, pruned[name] if name in pruned else checked(model, name)


def _by_kind(pruned: Mapping[str, Tensor]) -> Iterator[str]:
    """Zeros by kind of layer, over all blocks: `mlp.fc1 50.0 % zero`."""
    kinds: dict[str, list[Tensor]] = {}
    for name, tensor in pruned.items():
        kinds.setdefault(".".join(name.split(".")[-3:-1]), []).append(tensor)
    for kind, tensors in kinds.items():
        zeros = sum(int((tensor == 0).sum()) for tensor in tensors)
        yield f"{kind} {100 * zeros / sum(t.numel() for t in tensors):.1f} % zero"
