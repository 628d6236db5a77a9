"""Image relative position encoding pair by pair (Wu et al. 2021), by the letter, in float64."""

import math

import torch


def piecewise(offset, ratio):
    """Eq. 18 with alpha = ratio, beta = 2 ratio, gamma = 8 ratio, cut off to an integer."""
    alpha, beta, gamma = ratio, 2 * ratio, 8 * ratio
    if abs(offset) <= alpha:
        return round(offset)
    bent = round(alpha + math.log(abs(offset) / alpha) / math.log(gamma / alpha) * (beta - alpha))
    return int(math.copysign(1, offset) * min(beta, bent))


def pair_buckets(method, ratio, first, second):
    """Bucket of a pair of places (row, column) in each table of a method: one, for cross two."""
    row, column = first[0] - second[0], first[1] - second[1]
    half = int(2 * ratio)
    if method == "product":
        return [(piecewise(row, ratio) + half) * (2 * half + 1) + piecewise(column, ratio) + half]
    if method == "cross":
        return [piecewise(row, ratio) + half, piecewise(column, ratio) + half]
    if method == "euclidean":
        return [piecewise(round(math.sqrt(row**2 + column**2)), ratio) + half]
    return [piecewise(row**2 + column**2, ratio) + half]


def places(grid, prefix_tokens):
    """(row, column) of every token; None for a prefix token."""
    return [None] * prefix_tokens + [(r, c) for r in range(grid[0]) for c in range(grid[1])]


def entry(tables, method, ratio, head, first, second):
    """The vector (or number) of a pair for a head: the sum over a method's tables."""
    if first is None or second is None:
        buckets = [table.shape[-1] - 1 for table in tables]
    else:
        buckets = pair_buckets(method, ratio, first, second)
    return sum(
        table[head if len(table) > 1 else 0, ..., bucket]
        for table, bucket in zip(tables, buckets, strict=True)
    )


def encoded(config, tables, grid, prefix_tokens, query, key, values, probabilities):
    """Logits and values with all terms, one pair of tokens after the other.

    tables: "q", "k", "v" -> the tables of it; query is scaled, key is not; the batch is first.
    """
    tokens = places(grid, prefix_tokens)
    logits, values = query @ key.transpose(-2, -1), values.clone()
    for image in range(logits.shape[0]):
        for head in range(logits.shape[1]):
            for i, first in enumerate(tokens):
                for j, second in enumerate(tokens):

                    def of(name, one, other, head=head):
                        return entry(tables[name], config.method, config.ratio, head, one, other)

                    at = (image, head)
                    if "k" in config.on:
                        vector = of("k", first, second)
                        bias = config.mode == "bias"
                        logits[at][i, j] += vector if bias else query[at][i] @ vector
                    if "q" in config.on:
                        vector = of("q", second, first)
                        scaled = key[at][j] / math.sqrt(key.shape[-1])
                        logits[at][i, j] += vector if config.mode == "bias" else scaled @ vector
                    if "v" in config.on:
                        values[at][i] += probabilities[at][i, j] * of("v", first, second)
    return logits, values


def random_inputs(tokens, *, batch=2, heads=2, head_dim=3, seed=0):
    """query, key, values, probabilities in float64."""
    noise = torch.Generator().manual_seed(seed)
    maps, vectors = (batch, heads, tokens, tokens), (batch, heads, tokens, head_dim)
    return [
        torch.randn(shape, generator=noise, dtype=torch.float64)
        for shape in (vectors, vectors, vectors, maps)
    ]
