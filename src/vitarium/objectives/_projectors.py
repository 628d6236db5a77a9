"""Projectors: MLPs between a model's features and what a loss compares, dropped after training."""

from itertools import pairwise

from torch import nn


def projector(*widths: int) -> nn.Sequential:
    """Linear layers with biases, and a ReLU between each two of them (Khosla et al. 2020, arXiv
    2004.11362, Sec. 4.4: two layers).

    widths: of the features, of hidden layers, of the output.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def normalized_projector(*widths: int) -> nn.Sequential:
    """Linear layers without biases, each before batch normalization; a ReLU between each two of
    them, and no weights in the last normalization (Chen et al. 2021, arXiv 2104.02057, Sec. 4.1).

    widths: of the features, of hidden layers, of the output.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    last, output = widths[-2:]
    layers += [nn.Linear(last, output, bias=False), nn.BatchNorm1d(output, affine=False)]
    return nn.Sequential(*layers)
