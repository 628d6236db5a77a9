"""Linear layers whose matrix [out, in] is made of two cores, with fewer parameters and products.

Each knows its matrix, and the nearest cores to any matrix. `core_in` acts on the inputs first. The
forms, initialization and rates are those of Qiu et al. 2024, arXiv 2406.06248.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod, sqrt

import torch
from torch import Tensor, nn

Pair = tuple[int, int]
CORES = ("core_in", "core_out")


class StructuredLinear(nn.Module, ABC):
    """y = A x + bias, inputs [..., in_features] -> outputs [..., out_features], A of two cores.

    Each core is drawn from N(0, s^2) with s = min(1, sqrt(b / a)) / sqrt(a), a and b its own fan-in
    and fan-out; the bias is zero.

    Args:
        fans: of each core, its fan-in and fan-out.
        shapes: of the cores.
        zero: start `core_out` at zero, and so the whole map.
        normalized: divide each core by its root mean square over the largest that the
            initialization would give it, where that is more than 1, and multiply it by a learned
            gain (1 at the start).
        mup_rates: whether the cores ask for learning rates of their own.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        fans: tuple[Pair, Pair],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        *,
        bias: bool = True,
        zero: bool = False,
        normalized: bool = False,
        mup_rates: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.fans = in_features, out_features, fans
        self.normalized, self.mup_rates = normalized, mup_rates
        self.core_in = nn.Parameter(torch.empty(shapes[0]))
        self.core_out = nn.Parameter(torch.empty(shapes[1]))
        nn.init.normal_(self.core_in, std=_std(*fans[0]))
        if zero:
            nn.init.zeros_(self.core_out)
        else:
            nn.init.normal_(self.core_out, std=_std(*fans[1]))
        if normalized:
            self.core_in_gain = nn.Parameter(torch.ones(1))
            self.core_out_gain = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]"""
        cores = self._effective({name: getattr(self, name) for name in self.factor_names})
        outputs = self._product(inputs.flatten(0, -2), *cores)
        if self.bias is not None:
            outputs = outputs + self.bias.to(outputs.dtype)
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Of the parameters that its matrix is made of."""
        gains = tuple(f"{name}_gain" for name in CORES) if self.normalized else ()
        return CORES + gains

    def lr_multipliers(self) -> Mapping[str, float]:
        """Of Adam: a core's is in_features / its fan-in / the number of cores (muP, App. B)."""
        if not self.mup_rates:
            return {}
        pairs = zip(CORES, self.fans, strict=True)
        return {name: self.in_features / fan_in / len(CORES) for name, (fan_in, _) in pairs}

    def matrix(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Its matrix [out_features, in_features], float64, with these tensors as its own."""
        doubles = {name: tensor.double() for name, tensor in factors.items()}
        return self._dense(*self._effective(doubles))

    def factored(self, matrix: Tensor) -> tuple[dict[str, Tensor], float]:
        """The nearest factors of a matrix [out_features, in_features] in Frobenius norm, float64,
        by name, and the norm of what they leave out, by the singular values alone."""
        *cores, squared_error = self._nearest(matrix.double())
        factors: dict[str, Tensor] = {}
        for name, core, fans in zip(CORES, cores, self.fans, strict=True):
            factors[name] = core.contiguous()
            if self.normalized:
                factors[f"{name}_gain"] = _excess(core, fans).reshape(1)
        return factors, float(squared_error) ** 0.5

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def _effective(self, factors: Mapping[str, Tensor]) -> list[Tensor]:
        """The cores as they are multiplied with."""
        cores = [factors[name] for name in CORES]
        if not self.normalized:
            return cores
        gains = [factors[f"{name}_gain"] for name in CORES]
        triples = zip(cores, gains, self.fans, strict=True)
        return [core * (gain / _excess(core, fans)) for core, gain, fans in triples]

    @abstractmethod
    def _product(self, rows: Tensor, core_in: Tensor, core_out: Tensor) -> Tensor:
        """Rows [n, in_features] -> [n, out_features]"""

    @abstractmethod
    def _dense(self, core_in: Tensor, core_out: Tensor) -> Tensor:
        """[out_features, in_features]"""

    @abstractmethod
    def _nearest(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both cores, and the squared Frobenius norm of what they leave out (scalar)."""


class LowRank(StructuredLinear):
    """A = core_out core_in, [out, rank] [rank, in]; nearest by truncated SVD (Eckart-Young)."""

    def __init__(self, in_features: int, out_features: int, rank: int, **more: bool) -> None:
        fans = (in_features, rank), (rank, out_features)
        shapes = (rank, in_features), (out_features, rank)
        super().__init__(in_features, out_features, fans, shapes, **more)
        self.rank = rank

    def _product(self, rows: Tensor, core_in: Tensor, core_out: Tensor) -> Tensor:
        return rows @ core_in.T @ core_out.T

    def _dense(self, core_in: Tensor, core_out: Tensor) -> Tensor:
        return core_out @ core_in

    def _nearest(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, left_out = _truncated(matrix, self.rank)
        return right, left, left_out


class BlockTensorTrain(StructuredLinear):
    """A[(p, q), (a, b)] = sum_k core_in[a, b, (p, k)] core_out[p, q, (a, k)].

    a < m1, b < m0, p < n0, q < n1, where in_features = m0 m1 = `in_pair` and out_features = n0 n1 =
    `out_pair`: every slice (p, a) of n1 outputs and m0 inputs has at most rank `rank`, and the
    nearest such matrix truncates the SVD of each slice. Parameters: rank (in n0 + m1 out).
    """

    def __init__(self, in_pair: Pair, out_pair: Pair, rank: int, **more: bool) -> None:
        (m0, m1), (n0, n1) = in_pair, out_pair
        fans = (m0, n0 * rank), (m1 * rank, n1)
        shapes = (m1, m0, n0 * rank), (n0, n1, m1 * rank)
        super().__init__(m0 * m1, n0 * n1, fans, shapes, **more)
        self.in_pair, self.out_pair, self.rank = in_pair, out_pair, rank

    def _product(self, rows: Tensor, core_in: Tensor, core_out: Tensor) -> Tensor:
        (m0, m1), n0 = self.in_pair, self.out_pair[0]
        inputs = rows.reshape(-1, m1, m0).transpose(0, 1)
        middle = (inputs @ core_in).unflatten(-1, (n0, self.rank))  # [m1, n, n0, rank]
        outputs = middle.permute(2, 1, 0, 3).flatten(2) @ core_out.transpose(1, 2)  # [n0, n, n1]
        return outputs.transpose(0, 1).flatten(1)

    def _dense(self, core_in: Tensor, core_out: Tensor) -> Tensor:
        (m0, m1), (n0, n1) = self.in_pair, self.out_pair
        first = core_in.reshape(m1, m0, n0, self.rank)
        last = core_out.reshape(n0, n1, m1, self.rank)
        return torch.einsum("abpk,pqak->pqab", first, last).reshape(n0 * n1, m0 * m1)

    def _nearest(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (m0, m1), (n0, n1) = self.in_pair, self.out_pair
        slices = matrix.reshape(n0, n1, m1, m0).transpose(1, 2)  # [n0, m1, n1, m0]
        left, right, left_out = _truncated(slices, self.rank)
        core_in = right.permute(1, 3, 0, 2).reshape(m1, m0, n0 * self.rank)
        core_out = left.transpose(1, 2).reshape(n0, n1, m1 * self.rank)
        return core_in, core_out, left_out


class Monarch(StructuredLinear):
    """Two block-diagonal cores with a strided permutation between them and at the output.

    Blocks of i = ceil(in / blocks) inputs and o = ceil(out / blocks) outputs; inputs are padded and
    outputs cut. `core_in` [blocks, c, i] and `core_out` [blocks, o, c] have c = min(i, o) middle
    channels a block; middle channel f of all goes to output block f mod blocks, whose outputs are
    those with that remainder. Where c is divisible by blocks, this is a block tensor train of rank
    c / blocks with its outputs interleaved; else ranks of slices differ by one.
    """

    def __init__(self, in_features: int, out_features: int, blocks: int, **more: bool) -> None:
        inputs, outputs = -(-in_features // blocks), -(-out_features // blocks)
        channels = min(inputs, outputs)
        fans = (inputs, channels), (channels, outputs)
        shapes = (blocks, channels, inputs), (blocks, outputs, channels)
        super().__init__(in_features, out_features, fans, shapes, **more)
        self.blocks, self.channels = blocks, channels

    def _product(self, rows: Tensor, core_in: Tensor, core_out: Tensor) -> Tensor:
        padding = core_in.shape[0] * core_in.shape[2] - self.in_features
        padded = nn.functional.pad(rows, (0, padding)).unflatten(1, (self.blocks, -1))
        middle = padded.transpose(0, 1) @ core_in.transpose(1, 2)  # [blocks, n, channels]
        strided = middle.transpose(0, 1).flatten(1).unflatten(1, (self.channels, self.blocks))
        outputs = strided.permute(2, 0, 1) @ core_out.transpose(1, 2)  # [blocks, n, outputs]
        return outputs.permute(1, 2, 0).flatten(1)[:, : self.out_features]

    def _dense(self, core_in: Tensor, core_out: Tensor) -> Tensor:
        first = torch.block_diag(*core_in).unflatten(0, (self.channels, self.blocks))
        matrix = core_out @ first.transpose(0, 1)  # [blocks, outputs, inputs of all]
        return matrix.transpose(0, 1).flatten(0, 1)[: self.out_features, : self.in_features]

    def _nearest(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, outputs = self.blocks, self.channels, self.core_out.shape[1]
        inputs = self.core_in.shape[2]
        shape = (outputs * count, count * inputs)
        padded = matrix.new_zeros(shape)
        padded[: self.out_features, : self.in_features] = matrix
        slices = padded.reshape(outputs, count, count, inputs).permute(1, 2, 0, 3)
        u, values, v = torch.linalg.svd(slices, full_matrices=False)  # [to, from, ...]
        origin = torch.arange(count).unsqueeze(1)
        channel = torch.arange(channels).expand(count, channels)
        flat = origin * channels + channel
        target, order = flat % count, channel // count  # its block, and number in that slice
        root = values[target, origin, order].sqrt().unsqueeze(-1)
        core_in = v[target, origin, order] * root
        core_out = matrix.new_zeros(count, outputs, channels)
        core_out[target, :, flat // count] = u[target, origin, :, order] * root
        used = torch.zeros_like(values, dtype=torch.bool)
        used[target, origin, order] = True
        return core_in, core_out, values[~used].square().sum()


class KroneckerSum(StructuredLinear):
    """A = sum_k core_in[k] kron core_out[k], [rank, n1, m1] and [rank, n2, m2].

    in_features = m1 m2 = `in_pair`, out_features = n1 n2 = `out_pair`. The nearest one truncates
    the SVD of the rearranged matrix [n1 m1, n2 m2] (Van Loan and Pitsianis 1993).
    """

    def __init__(self, in_pair: Pair, out_pair: Pair, rank: int, **more: bool) -> None:
        (m1, m2), (n1, n2) = in_pair, out_pair
        fans = (m1, n1 * rank), (m2 * rank, n2)
        shapes = (rank, n1, m1), (rank, n2, m2)
        super().__init__(m1 * m2, n1 * n2, fans, shapes, **more)
        self.in_pair, self.out_pair, self.rank = in_pair, out_pair, rank

    def _product(self, rows: Tensor, core_in: Tensor, core_out: Tensor) -> Tensor:
        (m1, m2), n1 = self.in_pair, self.out_pair[0]
        inputs = rows.reshape(-1, m1, m2).transpose(1, 2)
        middle = inputs @ core_in.flatten(0, 1).T  # [n, m2, rank n1]
        middle = middle.unflatten(2, (self.rank, n1)).permute(0, 3, 2, 1).flatten(2)
        return (middle @ core_out.transpose(1, 2).flatten(0, 1)).flatten(1)  # [n, n1 n2]

    def _dense(self, core_in: Tensor, core_out: Tensor) -> Tensor:
        product = torch.einsum("kpa,kqb->pqab", core_in, core_out)
        return product.reshape(self.out_features, self.in_features)

    def _nearest(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (m1, m2), (n1, n2) = self.in_pair, self.out_pair
        rearranged = matrix.reshape(n1, n2, m1, m2).transpose(1, 2).reshape(n1 * m1, n2 * m2)
        left, right, left_out = _truncated(rearranged, self.rank)
        shapes = (self.rank, n1, m1), (self.rank, n2, m2)
        return left.T.reshape(shapes[0]), right.reshape(shapes[1]), left_out


def even_pair(size: int) -> Pair:
    """The two factors of a size that are closest to each other, the smaller first."""
    smaller = next(n for n in range(int(sqrt(size)), 0, -1) if size % n == 0)
    return smaller, size // smaller


def largest_rank(structure: type[StructuredLinear], in_pair: Pair, out_pair: Pair) -> int:
    """With which a layer can hold every matrix of these sizes; more would be of no use."""
    if structure is LowRank:
        return min(prod(in_pair), prod(out_pair))
    if structure is BlockTensorTrain:
        return min(in_pair[0], out_pair[1])
    return min(in_pair[0] * out_pair[0], in_pair[1] * out_pair[1])


def _std(fan_in: int, fan_out: int) -> float:
    return min(1.0, sqrt(fan_out / fan_in)) / sqrt(fan_in)


def _excess(core: Tensor, fans: Pair) -> Tensor:
    """How many times a core's root mean square is too large, at least 1 (scalar)."""
    rms = torch.linalg.vector_norm(core) / sqrt(core.numel())
    return (rms / _std(*fans)).clamp(min=1)


def _truncated(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factors [..., n, rank] and [..., rank, m] of matrices [..., n, m] that are nearest to them,
    of equal norms, and the squared norm of what they leave out in all (scalar)."""
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    root = values[..., :rank].sqrt()
    left, right = u[..., :rank] * root.unsqueeze(-2), root.unsqueeze(-1) * v[..., :rank, :]
    return left, right, values[..., rank:].square().sum()
