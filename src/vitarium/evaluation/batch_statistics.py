"""Statistics of batch normalizations: buffers that describe activations, and are no weights.

Between two models they are not on the line between theirs, and beyond them a variance would be
negative. They are counted anew on images, or joined as the statistics that they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import Weights

MEAN, VARIANCE, COUNT = "running_mean", "running_var", "num_batches_tracked"
NUM_IMAGES, BATCH_SIZE = 1024, 128
"""Of images by which statistics are counted anew, at most."""


def is_statistic(name: str) -> bool:
    """Whether a tensor of a state_dict is one, by torch's names of them."""
    return name.rpartition(".")[2] in (MEAN, VARIANCE, COUNT)


def has_statistics(model: nn.Module) -> bool:
    return any(is_statistic(name) for name, _ in model.named_buffers())


def joined(models: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """The statistics of what all models have seen together, by name, in float64 [channels].

    Means are averaged. A variance is the mean of variances and what lies between the means: that
    of a mixture, E[v + m^2] - E[m]^2. The count of batches is the largest.

    Args:
        shares: how much each model counts: not negative, with a sum of 1.
    """
    statistics: dict[str, Tensor] = {}
    for name in filter(is_statistic, models[0]):
        layer, _, kind = name.rpartition(".")
        if kind == COUNT:
            statistics[name] = torch.stack([model[name] for model in models]).amax(0)
            continue
        mean_name = f"{layer}.{MEAN}" if layer else MEAN
        weights = torch.tensor(shares, dtype=torch.float64)
        means = torch.stack([model[mean_name].double() for model in models])
        mean = torch.tensordot(weights, means, dims=1)
        if kind == MEAN:
            statistics[name] = mean
            continue
        variances = torch.stack([model[name].double() for model in models])
        between = torch.tensordot(weights, (means - mean).square(), dims=1)
        statistics[name] = torch.tensordot(weights, variances, dims=1) + between
    return statistics


@torch.no_grad()
def recount(model: nn.Module, examples: EvalData) -> None:
    """Count a model's statistics anew on images, in place: the mean over batches of each.

    As after averaging in stochastic weight averaging (Izmailov et al. 2018, Sec. 3.2). A model
    without batch normalization stays as it is, and is not run.
    """
    recount_on(model, (batch.images for batch in examples.first(NUM_IMAGES).batches(BATCH_SIZE)))


@torch.no_grad()
def recount_on(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """The same on batches of images [n, channels, height, width]."""
    layers = _layers(model)
    if not layers:
        return
    momenta, modes = [layer.momentum for layer in layers], [layer.training for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    try:
        for images in batches:
            if len(images) > 1:  # of a single image a layer may have one number per channel
                model(images)
    finally:
        for layer, momentum, mode in zip(layers, momenta, modes, strict=True):
            layer.momentum = momentum
            layer.train(mode)


def counting(model: nn.Module) -> nn.Module:
    """The model with its batch normalizations in training mode: a copy, or without any, itself."""
    if not has_statistics(model):
        return model
    model = deepcopy(model)
    for layer in _layers(model):
        layer.train()
    return model


def statistics_of(model: nn.Module) -> Mapping[str, Tensor]:
    """A model's statistics by name, copies [channels]."""
    return {n: b.detach().clone() for n, b in model.named_buffers() if is_statistic(n)}


def _layers(model: nn.Module) -> list[_NormBase]:
    """Those that count statistics."""
    norms = [layer for layer in model.modules() if isinstance(layer, _NormBase)]
    return [layer for layer in norms if layer.track_running_stats]
