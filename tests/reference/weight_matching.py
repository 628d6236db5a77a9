"""Git Re-Basin's weight matching as the paper has it (Ainsworth et al. 2023, Algorithm 1).

Plain loops in numpy float64 over a specification of which axis of which tensor has which
permutation; heads as blocks: they are compared after the best order of channels inside of them.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


def specification(symmetries):
    """[(tensor, rows, shape, the axes' groups)], and for each group of groups what is inside."""
    pieces = [
        (piece.tensor, slice(piece.start, piece.stop), piece.shape, [a.group for a in piece.axes])
        for piece in symmetries.pieces
    ]
    inside = {name: group.inside for name, group in symmetries.groups.items()}
    sizes = {name: group.size for name, group in symmetries.groups.items()}
    return pieces, inside, sizes


def weight_matching(symmetries, a, b, seed=0, sweeps=100):
    """The second model permuted, by name, and the objective after every sweep."""
    pieces, inside, sizes = specification(symmetries)
    arrays = [
        [np.asarray(m[tensor], dtype=np.float64)[rows].reshape(shape) for m in (a, b)]
        for tensor, rows, shape, _ in pieces
    ]
    ours, theirs = [one for one, _ in arrays], [other for _, other in arrays]
    axes = [groups for *_, groups in pieces]
    draw, found = np.random.default_rng(seed), []
    found.append(objective(ours, theirs))
    for _ in range(sweeps):
        for group in draw.permutation([name for name, outer in inside.items() if outer is None]):
            children = [name for name, outer in inside.items() if outer == group]
            if children:
                _match_heads(ours, theirs, axes, group, children, sizes)
            else:
                cost = _cost(ours, theirs, axes, group)
                order = linear_sum_assignment(cost, maximize=True)[1]
                _permute(theirs, axes, group, order)
        found.append(objective(ours, theirs))
        if found[-1] - found[-2] <= 1e-12 * abs(found[-1]):
            break
    made = {name: np.asarray(tensor).astype(np.float64) for name, tensor in b.items()}
    for (tensor, rows, _, _), part in zip(pieces, theirs, strict=True):
        made[tensor][rows] = part.reshape(made[tensor][rows].shape)
    return made, found


def objective(ours, theirs):
    return sum(float((one * other).sum()) for one, other in zip(ours, theirs, strict=True))


def _cost(ours, theirs, axes, group):
    """sum over tensors of A (axis first, flattened) times B (the same) transposed."""
    cost = 0.0
    for one, other, groups in zip(ours, theirs, axes, strict=True):
        if group in groups:
            at = groups.index(group)
            first, second = np.moveaxis(one, at, 0), np.moveaxis(other, at, 0)
            cost = cost + first.reshape(len(first), -1) @ second.reshape(len(second), -1).T
    return cost


def _permute(theirs, axes, group, order):
    for number, groups in enumerate(axes):
        if group in groups:
            theirs[number] = np.take(theirs[number], order, axis=groups.index(group))


def _match_heads(ours, theirs, axes, group, children, sizes):
    """Every head against every head, each pair with its own best channels; then the heads."""
    heads = sizes[group]
    having = [n for n, groups in enumerate(axes) if group in groups]
    score, inner = np.zeros((heads, heads)), {}
    for p in range(heads):
        for q in range(heads):
            one = [np.take(ours[n], p, axes[n].index(group)) for n in having]
            other = [np.take(theirs[n], q, axes[n].index(group)) for n in having]
            left = [[name for name in axes[n] if name != group] for n in having]
            for child in children:
                cost = _cost(one, other, left, child)
                rows, order = linear_sum_assignment(cost, maximize=True)
                score[p, q] += cost[rows, order].sum()
                inner[p, q, child] = order
            for x, y, names in zip(one, other, left, strict=True):
                if not set(names) & set(children):
                    score[p, q] += (x * y).sum()
    order = linear_sum_assignment(score, maximize=True)[1]
    _permute(theirs, axes, group, order)
    for n in having:
        for child in children:
            if child in axes[n]:
                at = axes[n].index(group)
                parts = [np.take(theirs[n], p, at) for p in range(heads)]
                place = axes[n].index(child) - (axes[n].index(child) > at)
                parts = [
                    np.take(part, inner[p, order[p], child], place) for p, part in enumerate(parts)
                ]
                theirs[n] = np.stack(parts, at)
