"""Which big patches of an image have the most in them, and so which scale each of them has."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 16
"""Gray levels between an image's darkest and brightest pixel, of which entropies are taken."""


def big_patches(images: Tensor, side: int) -> Tensor:
    """Squares, row by row: [batch, c, rows * side, columns * side] -> [batch, n, c, side, side]"""
    cut = images.unflatten(2, (-1, side)).unflatten(-1, (-1, side))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def entropies(images: Tensor, side: int) -> Tensor:
    """Entropy of the gray levels of each big patch, in nats: [batch, c, h, w] -> [batch, n]

    Levels divide the range of each image, so that no standardization changes them.
    """
    gray = _gray(images)
    low, high = (extreme((-2, -1), keepdim=True) for extreme in (gray.amin, gray.amax))
    spread = (high - low).clamp_min(torch.finfo(gray.dtype).tiny)
    levels = ((gray - low) / spread * LEVELS).floor().clamp(0, LEVELS - 1)
    pixels = big_patches(levels, side).flatten(2)
    counts = [(pixels == level).to(gray.dtype).mean(-1) for level in range(LEVELS)]
    shares = torch.stack(counts, dim=-1)
    return -(shares * shares.clamp_min(torch.finfo(gray.dtype).tiny).log()).sum(-1)


def gradients(images: Tensor, side: int) -> Tensor:
    """Mean length of the Sobel gradient in each big patch: [batch, c, h, w] -> [batch, n]"""
    padded = F.pad(_gray(images), (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    horizontal = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    vertical = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return big_patches((horizontal.square() + vertical.square()).sqrt(), side).mean((2, 3, 4))


def _gray(images: Tensor) -> Tensor:
    wide = torch.promote_types(images.dtype, torch.float32)
    return images.detach().to(wide).mean(1, keepdim=True)


class ScaleChoice(nn.Module):
    """Which scale big patches have: scores [batch, n] -> numbers of those of each scale, from
    coarse to fine, [batch, count] in order. The highest scores are cut most finely."""

    def __init__(
        self, counts: tuple[int, int], num_big: int, score: str, candidate_ratio: float
    ) -> None:
        super().__init__()
        fine, middle = counts  # big patches of those scales, of all
        self.counts, self.score = counts, score
        if score == "random":
            self.candidates = (num_big, 0)
        else:
            of_fine = min(num_big - middle, round(candidate_ratio * fine))
            self.candidates = (of_fine, min(num_big - of_fine, round(candidate_ratio * middle)))
        draws = any(c > n > 0 for c, n in zip(self.candidates, counts, strict=True))
        draws = draws or (score == "random" and num_big > middle > 0)
        self.prob = float(draws)  # as dropout has it, which draws, too

    def forward(self, scores: Tensor) -> tuple[Tensor, ...]:
        order = scores.argsort(dim=1, descending=True, stable=True)
        if self.training and self.prob:
            order = self._drawn(order)
        fine, middle, coarse = order.tensor_split((self.counts[0], sum(self.counts)), dim=1)
        scales = (coarse, middle, fine) if self.counts[1] else (coarse, fine)
        return tuple(numbers.sort(dim=1).values for numbers in scales)

    def _drawn(self, order: Tensor) -> Tensor:
        """First as many as are cut finely of their candidates, then of those of the middle scale
        as many, then all others."""
        ends = (self.candidates[0], sum(self.candidates))
        *candidates, rest = order.tensor_split(ends, dim=1)
        chosen, left = [], []
        for best, count in zip(candidates, self.counts, strict=True):
            drawn = torch.rand(best.shape, device=best.device).argsort(dim=1)
            of_scale, others = best.gather(1, drawn).tensor_split((count,), dim=1)
            chosen.append(of_scale)
            left.append(others)
        return torch.cat([*chosen, *left, rest], dim=1)


def evenly_spread(count: int, number: int, device: torch.device) -> Tensor:
    """So many of 0 to number - 1, evenly spread: [count]"""
    return (2 * torch.arange(count, device=device) + 1) * number // (2 * max(count, 1))
