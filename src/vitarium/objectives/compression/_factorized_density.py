"""A learned density for each channel of quantized maps, and the bits that coding by it takes."""

from itertools import pairwise
from math import expm1, log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (1, 3, 3, 3, 1)
_INITIAL_SCALE = 10.0
"""About how far from 0 values are expected at first."""
_SMALLEST = 1e-12
"""Difference of logits from which on bits have no gradient; an interval of the tails."""


class FactorizedDensity(nn.Module):
    """Cumulative distributions c(x) = sigmoid(f(x)), f a monotone network for each channel.

    Layers are x -> softplus(H) x + b, and between them x -> x + tanh(a) tanh(x) (Ballé et al. 2018,
    arXiv 1802.01436, App. 6.1). Positive matrices and |tanh(a)| < 1 make f strictly rise.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        scale = _INITIAL_SCALE ** (1 / (len(_WIDTHS) - 1))
        self.matrices, self.biases = nn.ParameterList(), nn.ParameterList()
        self.factors = nn.ParameterList()
        for incoming, outgoing in pairwise(_WIDTHS):
            start = log(expm1(1 / scale / outgoing))
            self.matrices.append(torch.full((channels, outgoing, incoming), start))
            self.biases.append(torch.empty(channels, outgoing, 1).uniform_(-0.5, 0.5))
        for width in _WIDTHS[1:-1]:
            self.factors.append(torch.zeros(channels, width, 1))

    def logits(self, values: Tensor) -> Tensor:
        """f of each channel's values: [channels, n] -> the same"""
        hidden = values.unsqueeze(1)
        for number, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            if number:
                hidden = hidden + torch.tanh(self.factors[number - 1]) * torch.tanh(hidden)
            hidden = F.softplus(matrix) @ hidden + bias
        return hidden.squeeze(1)

    def bits(self, maps: Tensor) -> Tensor:
        """-log2(c(x + 1/2) - c(x - 1/2)) of each entry x, the density of x with uniform noise, or
        the probability of x where it is an integer: [batch, channels, h, w] -> the same"""
        with torch.autocast(maps.device.type, enabled=False):  # small differences of logits count
            values = maps.transpose(0, 1)
            lower, upper = (
                self.logits(values.flatten(1) + side).view_as(values) for side in (-0.5, 0.5)
            )
            # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u))
            between = torch.log(-torch.expm1((lower - upper).clamp(max=-_SMALLEST)))
            nats = -(F.logsigmoid(upper) + F.logsigmoid(-lower) + between)
            return nats.transpose(0, 1) / log(2)
