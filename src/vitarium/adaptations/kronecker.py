"""KAdaptation: changes that are sums of Kronecker products."""

from collections.abc import Mapping

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.adaptations._factors import Factors, Part, adapt_linear, changed, in_rows, matrices_of
from vitarium.adaptations._selection import Blocks, train_only
from vitarium.adaptations.base import adaptation
from vitarium.adaptations.lora import Matrices
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput

_RULES = "adaptation.rules"
_INITIAL_STD = 0.01


class Kronecker(Config):
    terms: PositiveInt = 4
    """n: number of Kronecker products, and rows and columns of each shared A_i."""
    rank: PositiveInt = 1
    """Rank r of each B_i = u_i v_i."""
    matrices: Matrices = ("q", "v")
    """Which matrices of a block; see `lora`."""
    blocks: Blocks | None = None
    """Numbers of the blocks, from 0; negative ones count from the last. None: all."""


class Shared(nn.Module):
    """The matrices A_i that all changes share, at the model's `adaptation`: [n, n, n]"""

    def __init__(self, terms: int, like: Tensor) -> None:
        super().__init__()
        rules = like.new_empty(terms, terms, terms)
        self.rules = nn.Parameter(nn.init.normal_(rules, std=_INITIAL_STD))


class KroneckerFactors(Factors):
    """Factors u [n, rows / n, r] and v [n, r, in / n] of each matrix in a layer."""

    def __init__(
        self, layer: nn.Linear, parts: list[Part], config: Kronecker, shared: Shared
    ) -> None:
        super().__init__()
        self.parts, self.rows = parts, layer.out_features
        self._shared = [shared]  # in a list: its parameter is the model's, not this module's
        for part in parts:
            rows, columns, n = part.stop - part.start, layer.in_features, config.terms
            u = layer.weight.new_empty(n, rows // n, config.rank)
            nn.init.xavier_uniform_(u)
            self.register_parameter(f"{part.matrix}_u", nn.Parameter(u))
            v = layer.weight.new_zeros(n, config.rank, columns // n)
            self.register_parameter(f"{part.matrix}_v", nn.Parameter(v))

    def change(self) -> Tensor:
        rules = self._shared[0].rules
        changes = {
            part: _kronecker_sum(
                rules, getattr(self, f"{part.matrix}_u"), getattr(self, f"{part.matrix}_v")
            )
            for part in self.parts
        }
        return in_rows(changes, self.rows)


def _kronecker_sum(rules: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Sum over i of A_i kron (u_i v_i): [n, n, n], [n, p, r], [n, r, q] -> [n p, n q]"""
    total = torch.einsum("iab,ipr,irq->apbq", rules, u, v)
    return total.flatten(2).flatten(0, 1)


def _merge(config: Kronecker, name: str, weight: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
    rules = factors[_RULES].double()
    return changed(name, weight, factors, lambda own: _kronecker_sum(rules, own["u"], own["v"]))


@adaptation(
    "kronecker",
    title="KAdaptation",
    paper="He et al. 2023, arXiv 2203.16329, equations 5 to 7",
    merge=_merge,
    stackable=True,
)
def kronecker(config: Kronecker, model: nn.Module) -> None:
    """KAdaptation: the change of a frozen matrix is a sum of Kronecker products, and the head.

    Sum over n terms of A_i kron (u_i v_i), whose A_i [n, n] all matrices of the model share.
    """
    train_only(model, lambda name: False)
    layers = list(matrices_of(model, "kronecker", config.matrices, config.blocks))
    model.adaptation = Shared(config.terms, layers[0][1].weight)
    for name, layer, parts in layers:
        sizes = (layer.in_features, *(part.stop - part.start for part in parts))
        if any(size % config.terms for size in sizes):
            raise InvalidInput(
                f"adaptation 'kronecker': terms is {config.terms}, which does not divide the rows "
                f"and columns of {name} ({', '.join(map(str, sorted(set(sizes))))})"
            )
        smallest = min(sizes) // config.terms
        if config.rank > smallest:
            raise InvalidInput(
                f"adaptation 'kronecker': rank is {config.rank}, more than the {smallest} rows or "
                f"columns of a B_i in {name}"
            )
        adapt_linear(layer, KroneckerFactors(layer, parts, config, model.adaptation))
