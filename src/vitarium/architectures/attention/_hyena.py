"""Hyena N-D's operator: gates, and a convolution as long as the grid whose filter is computed.

Poli et al. 2023, arXiv 2302.10866, Sec. 3; Zimerman & Wolf 2024, arXiv 2309.13600, Sec. 3. Maps are
[batch, channels, rows, columns]. With order 2: y = x0 * (h (*) (x1 * v) + D (x1 * v)). A cell sees
those above and to the left; directions flip the map before the convolution, and back after it.
"""

import math
from typing import Literal

import torch
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from vitarium.architectures.attention._heads import refuse_masks
from vitarium.core.errors import InvalidInput

Filters = Literal["product", "2d", "direct"]
Window = Literal["fixed", "learned", "none"]
Directions = Literal["causal", "alternating", "four", "four_channels", "four_branches"]

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-2, -1), (-1,), (-2,))
_SLOWEST, _FASTEST = math.log(100) / 1.5, math.log(100) / 0.3
"""Rates of the window: a channel has fallen to 1/100 at 1.5, or 0.3, of the grid's side."""


def long_convolution(maps: Tensor, filters: Tensor) -> Tensor:
    """y[i, j] = sum over a <= i, b <= j of h[i - a, j - b] x[a, b], by the fast Fourier transform.

    Maps [batch, c, rows, columns], filters [c, rows, columns] -> as the maps, at least in float32.
    """
    rows, columns = maps.shape[-2:]
    size = (2 * rows, 2 * columns)
    wide = torch.promote_types(maps.dtype, torch.float32)
    spectrum = torch.fft.rfft2(maps.to(wide), s=size) * torch.fft.rfft2(filters.to(wide), s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., :rows, :columns]


class Sine(nn.Module):
    """sin(a x) with a learned a for each unit: [..., width] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.ones(1, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(self.frequency * inputs)


class ImplicitFilter(nn.Module):
    """Filters [channels, side, side], computed from the positions in the grid by small MLPs.

    product: one MLP for rows and one for columns, h[i, j] = f[i] g[j]; 2d: one MLP of both.
    """

    def __init__(self, channels: int, side: int, width: int, kind: Filters, window: Window) -> None:
        super().__init__()
        self.kind, self.window = kind, window
        self.positions = nn.Parameter(_encoded(side))
        self.activation = Sine(width)  # of all layers, as the authors have it
        inputs, count = (6, 1) if kind == "2d" else (3, 2)
        self.mlps = nn.ModuleList(_layers(inputs, width, channels) for _ in range(count))
        rates = torch.linspace(_SLOWEST, _FASTEST, channels).repeat(2, 1)
        if window == "none":
            rates = torch.zeros_like(rates)
        if window == "learned":
            self.rates = nn.Parameter(rates)
        else:
            self.register_buffer("rates", rates, persistent=False)

    def forward(self) -> Tensor:
        """-> [channels, side, side]"""
        side, axes = len(self.positions), [self._decayed(axis) for axis in (0, 1)]
        if self.kind == "product":
            by_row, by_column = (self._mlp(n, self.positions) * axes[n] for n in (0, 1))
            return torch.einsum("ic,jc->cij", by_row, by_column)
        row = self.positions.unsqueeze(1).expand(-1, side, -1)
        column = self.positions.unsqueeze(0).expand(side, -1, -1)
        filters = self._mlp(0, torch.cat([row, column], -1))
        return (filters * axes[0].unsqueeze(1) * axes[1]).permute(2, 0, 1)

    def _decayed(self, axis: int) -> Tensor:
        """The window along an axis, [side, channels]."""
        rates = self.rates[axis].abs()
        time = torch.linspace(0, 1, len(self.positions), dtype=rates.dtype, device=rates.device)
        return torch.exp(-time.unsqueeze(1) * rates)

    def _mlp(self, number: int, inputs: Tensor) -> Tensor:
        layers = list(self.mlps[number])  # type: ignore[call-overload]
        for layer in layers[:-1]:
            inputs = self.activation(layer(inputs))
        outputs: Tensor = layers[-1](inputs)
        return outputs


class HyenaOperator(nn.Module):
    """Tokens [batch, side * side, dim] -> the same.

    Args:
        order: 2 has one long convolution and two gates; every further order one of both more.
        filter_width: hidden units of the filters' MLPs.
        flipped: of directions "alternating", whether this one sees cells below and to the right.
    """

    def __init__(
        self,
        dim: int,
        side: int,
        *,
        order: int,
        filters: Filters,
        filter_width: int,
        window: Window,
        directions: Directions,
        flipped: bool,
        bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.side, self.order, self.directions = dim, side, order, directions
        self.filter_kind, self.window = filters, window
        self.flips = _FLIPS
        if directions in ("causal", "alternating"):
            self.flips = _FLIPS[1:2] if flipped and directions == "alternating" else _FLIPS[:1]
        self.branches = 4 if directions == "four_branches" else 1
        inner = (order + 1) * dim
        self.in_proj = nn.Linear(dim, inner, bias=bias)
        self.short_filter = nn.Conv2d(inner, inner * self.branches, 3, padding=1, groups=inner)
        if filters == "direct":
            scale = 1 / (2 * side)  # about as large as the sum over the grid leaves it
            self.filters = nn.Parameter(scale * torch.randn(order - 1, dim, side, side))
        else:
            self.filter_fn = ImplicitFilter((order - 1) * dim, side, filter_width, filters, window)
        self.bias = nn.Parameter(torch.randn(order - 1, dim))
        if directions == "four":
            self.mix = nn.Linear(4, 1)
        elif directions == "four_channels":
            self.mix = nn.Linear(4 * dim, dim)
        self.proj = nn.Linear(dim * self.branches, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        for layer in (self.in_proj, self.proj):
            init_weights_vit_timm(layer)

    def long_filters(self) -> Tensor:
        """[order - 1, dim, side, side]"""
        if hasattr(self, "filters"):
            return self.filters
        return self.filter_fn().unflatten(0, (self.order - 1, self.dim))

    def forward(
        self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        refuse_masks(self, attn_mask, is_causal)
        if tokens.shape[1] != self.side**2:
            raise InvalidInput(
                f"Hyena's operator needs all {self.side} x {self.side} patches of the model's own "
                f"images, and there are {tokens.shape[1]} tokens"
            )
        projected = self.in_proj(tokens).transpose(1, 2).unflatten(2, (self.side, self.side))
        # [batch, order + 1, dim, branches, side, side]
        sizes = (self.order + 1, self.dim, self.branches)
        parts = self.short_filter(projected).unflatten(1, sizes)
        filters = self.long_filters()
        mixed = []
        for number, flip in enumerate(self.flips):
            gates_and_values = parts[:, :, :, min(number, self.branches - 1)].unbind(1)
            mixed.append(self._recurrence(gates_and_values, filters, flip))
        joined = torch.stack(mixed, 1).flatten(3).permute(0, 3, 1, 2)  # [batch, n, flips, dim]
        outputs: Tensor = self.proj_drop(self.proj(self._joined(joined)))
        return outputs

    def _recurrence(
        self, parts: tuple[Tensor, ...], filters: Tensor, flip: tuple[int, ...]
    ) -> Tensor:
        """Gates from the last to the first, with a long convolution between two of them."""
        *gates, values = parts
        for number, gate in enumerate(reversed(gates[1:])):
            gated = values * gate
            convolved = long_convolution(gated.flip(flip), filters[number]).flip(flip)
            values = convolved.to(gated.dtype) + self.bias[number].view(-1, 1, 1) * gated
        return values * gates[0]

    def _joined(self, mixed: Tensor) -> Tensor:
        """[batch, n, flips, dim] -> [batch, n, dim], or 4 dim with branches."""
        if self.directions == "four":
            joined: Tensor = self.mix(mixed.transpose(2, 3)).squeeze(3)
            return joined
        flat = mixed.flatten(2)
        return self.mix(flat) if self.directions == "four_channels" else flat


def _encoded(side: int) -> Tensor:
    """Position t in [0, 1], and cos and -sin of a single slow wave over the grid: [side, 3]"""
    time = torch.linspace(0, 1, side)
    phase = 1e-4 * 2 * math.pi * torch.arange(side) / side
    return torch.stack([time, phase.cos(), -phase.sin()], 1)


def _layers(inputs: int, width: int, outputs: int) -> nn.ModuleList:
    hidden = [nn.Linear(inputs, width), *(nn.Linear(width, width) for _ in range(2))]
    return nn.ModuleList([*hidden, nn.Linear(width, outputs, bias=False)])
