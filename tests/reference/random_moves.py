"""Moves drawn at random, and models none of whose tensors is all zeros or ones."""

import torch


def random_moves(symmetries, generator, *, mix=False):
    """Of every group; mixed where it may be, or permuted."""
    moves = {}
    for name, group in symmetries.groups.items():
        places = symmetries.groups[group.inside].size if group.inside else None
        each = [_move(group, generator, mix) for _ in range(places or 1)]
        moves[name] = torch.stack(each) if places else each[0]
    return moves


def _move(group, generator, mix):
    n = group.size
    if not mix or group.maps == "permutation":
        return torch.randperm(n, generator=generator)
    drawn = torch.randn(n, n, dtype=torch.float64, generator=generator)
    if group.maps == "invertible":
        return drawn + 3 * torch.eye(n)
    # keeps the direction of the mean, as what stands before a LayerNorm has to
    ones = torch.ones(n, 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.cat([ones, drawn[:, 1:]], 1))[0][:, 1:]
    turn = torch.linalg.qr(drawn[1:, 1:])[0]
    return basis @ turn @ basis.T + ones @ ones.T / n


def scrambled(model, seed):
    """The model in eval mode, every parameter drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = 0.2 * torch.randn(parameter.shape, generator=generator)
        parameter.data = drawn + (1 if parameter.ndim == 1 else 0)
    return model.eval()
