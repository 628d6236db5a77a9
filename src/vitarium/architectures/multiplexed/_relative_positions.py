"""iRPE: where two patches stand to each other (Wu et al. 2021, arXiv 2107.14222)."""

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from pydantic import PositiveFloat, field_validator, model_validator
from torch import Tensor, nn

from vitarium.architectures.multiplexed._position_buckets import Method, buckets
from vitarium.core.config import Config

On = Literal["q", "k", "v"]
_NAMES: dict[On, str] = {"q": "query", "k": "key", "v": "value"}


class RelativePositionConfig(Config):
    """Image relative position encoding; the defaults are Mini-DeiT's."""

    method: Method = "product"
    """How an offset becomes a bucket: by row and column together (product), by the sum of a row's
    and a column's term (cross), by the rounded distance (euclidean) or by the squared one
    (quantized)."""
    mode: Literal["contextual", "bias"] = "contextual"
    """What a bucket adds: the product of its learned vector with queries, keys or probabilities
    (contextual), or a learned number (bias)."""
    on: tuple[On, ...] = ("k",)
    """What is encoded: queries (q), keys (k), values (v)."""
    ratio: PositiveFloat = 1.9
    """Offsets up to this many patches have buckets of their own; all offsets above 8 times as many
    share one."""
    shared_heads: bool = True
    """Share the encodings between all heads."""

    @field_validator("on")
    @classmethod
    def _in_order(cls, on: tuple[On, ...]) -> tuple[On, ...]:
        if not on:
            raise ValueError(
                "empty: name at least one of q, k, v; or set relative_positions to null"
            )
        if len(set(on)) < len(on):
            raise ValueError(f"{list(on)} names one of them twice; name each once")
        return tuple(name for name in _NAMES if name in on)

    @model_validator(mode="after")
    def _values_have_vectors(self) -> Self:
        if self.mode == "bias" and "v" in self.on:
            raise ValueError(
                "mode 'bias' adds numbers to the logits and cannot be on values (v); use mode "
                "'contextual', or leave v out of on"
            )
        return self


class RelativePositions(nn.Module):
    """Terms that depend on where two tokens of a grid stand to each other.

    With b(i, j) the bucket of the pair (i, j) and P_b the table's vector for it (Sec. 3):
    on keys      logits_ij += q_i . P_b(i,j)
    on queries   logits_ij += k_j . P_b(j,i)
    on values    output_i  += sum_j probability_ij P_b(i,j)
    In bias mode the terms of the logits are the tables' numbers themselves. Any two tokens with a
    prefix token among them have the last bucket.

    Tables are the parameters `query`, `key`, `value` [heads or 1, head_dim, buckets], without
    head_dim in bias mode. In their place method cross has `key_rows` and `key_columns`, and so on;
    P_b is their sum. They start at zero, and their shapes do not depend on the grid.
    """

    def __init__(
        self,
        config: RelativePositionConfig,
        *,
        num_heads: int,
        head_dim: int,
        grid: tuple[int, int],
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.scale = head_dim**-0.5
        self.buckets = buckets(config.method, config.ratio, tuple(grid), prefix_tokens)
        heads = 1 if config.shared_heads else num_heads
        vectors = (head_dim,) if config.mode == "contextual" else ()
        cross = config.method == "cross"
        count = self.buckets.per_axis + bool(prefix_tokens) if cross else self.buckets.count
        for on in config.on:
            for axis in ("_rows", "_columns") if cross else ("",):
                table = nn.Parameter(torch.zeros(heads, *vectors, count))
                self.register_parameter(_NAMES[on] + axis, table)

    def logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Products of queries, scaled by 1 / sqrt(head_dim), and keys [batch, heads, n, head_dim]
        with their terms added: [batch, heads, n, n]."""
        terms = []
        if "k" in self.config.on:
            terms.append(self._term(query, self._table("key")))
        if "q" in self.config.on:
            scale = self.scale if self.config.mode == "contextual" else 1
            terms.append(self._term(key, self._table("query") * scale).mT)
        if self.config.mode == "bias" or not terms:
            return sum(terms, query @ key.mT)
        # products are summed up on the terms, which saves a pass over the maps
        added = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        pairs = (query.flatten(0, 1), key.flatten(0, 1).mT)
        return torch.baddbmm(added.flatten(0, 1), *pairs).view(added.shape)

    def values(self, values: Tensor, probabilities: Tensor) -> Tensor:
        """Attended values [batch, heads, n, head_dim] with the terms of values added; they were
        attended with the probabilities [batch, heads, n, n]."""
        if "v" not in self.config.on:
            return values
        return values + self.buckets.collect(probabilities) @ self._table("value").mT

    def _term(self, tokens: Tensor, table: Tensor) -> Tensor:
        """[batch, heads, n, n]: of row i the token's product with the vectors of its pairs; in bias
        mode [heads or 1, n, n], the numbers of the pairs."""
        if self.config.mode == "contextual":
            return self.buckets.spread(tokens @ table)
        numbers = table.to(tokens.dtype)[:, None]
        return self.buckets.spread(numbers.expand(-1, tokens.shape[-2], -1))

    def _table(self, name: str) -> Tensor:
        """The table by buckets; contextual: of all heads, or [heads, head_dim, buckets]."""
        if self.config.method == "cross":
            # the sums of every row's and every column's entry, then those of the prefix tokens'
            rows, columns = (getattr(self, f"{name}_{axis}") for axis in ("rows", "columns"))
            count = self.buckets.per_axis
            pairs = rows[..., :count, None] + columns[..., None, :count]
            prefix = rows[..., count:] + columns[..., count:]
            table = torch.cat((pairs.flatten(-2), prefix), dim=-1)
        else:
            table = getattr(self, name)
        contextual = self.config.mode == "contextual"
        return table[0] if contextual and self.config.shared_heads else table

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for table in self.parameters():
            self.buckets.prepare(table.device)
        return self
