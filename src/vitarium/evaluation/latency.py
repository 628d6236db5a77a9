"""How long two models take for the same images, in turn."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

RUNS = 30  # of each model, by which its time is measured
_WARM_UP = 2


@torch.inference_mode()
def paired_seconds(
    first: nn.Module, second: nn.Module, images: Tensor, runs: int = RUNS
) -> list[tuple[float, float]]:
    """Seconds that each model takes for images [batch, c, h, w], in pairs of runs that follow each
    other, on the images' device.

    Whatever else the machine does falls on both; every other pair begins with the other model.
    """
    models = [model.to(images.device).eval() for model in (first, second)]
    pairs: list[tuple[float, float]] = []
    for run in range(runs + _WARM_UP):
        seconds = [0.0, 0.0]
        for number in (0, 1) if run % 2 else (1, 0):
            started = time.perf_counter()
            models[number](images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            seconds[number] = time.perf_counter() - started
        if run >= _WARM_UP:
            pairs.append((seconds[0], seconds[1]))
    return pairs


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Operations of torch run on so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
