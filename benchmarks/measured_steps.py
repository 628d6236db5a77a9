"""What a training step of an architecture takes: time, and memory for the backward pass."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from vitarium.core.registry import Section

BATCH, WARM_UP, STEPS, OUTPUTS = 50, 2, 10, 10


@dataclass(frozen=True)
class Step:
    images_per_second: float
    """Trained by one thread, in float32."""
    of_baseline: float
    """Seconds of a step, of those of the baseline, which is timed in turn with it."""
    saved_mib: float
    """MiB of tensors that a batch of 50 images keeps for its backward pass, weights not counted."""


def measured_step(architecture: Section, baseline: Section, file: Path) -> Step:
    """Measured once for each architecture and its settings, and kept in that file."""
    written = json.loads(file.read_text()) if file.exists() else {}
    key = json.dumps([architecture.factors(), baseline.factors()], sort_keys=True)
    if key not in written:
        written[key] = asdict(_measured(architecture, baseline))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(written, indent=2) + "\n")
    return Step(**written[key])


def _measured(architecture: Section, baseline: Section) -> Step:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (step, saved), (baseline_step, _) = _training(architecture), _training(baseline)
        seconds, baseline_seconds = [], []
        for _ in range(WARM_UP + STEPS):
            seconds.append(step())
            baseline_seconds.append(baseline_step())
    finally:
        torch.set_num_threads(threads)
    pairs = zip(seconds[WARM_UP:], baseline_seconds[WARM_UP:], strict=True)
    ratio = median(own / of_baseline for own, of_baseline in pairs)
    return Step(BATCH / median(seconds[WARM_UP:]), ratio, saved)


def _training(architecture: Section) -> tuple[Callable[[], float], float]:
    """A step, which gives its seconds, and the MiB that it saves for the backward pass."""
    torch.manual_seed(0)
    model = architecture(OUTPUTS).train()
    images = torch.randn(BATCH, *architecture.config.input_size)
    labels = torch.arange(BATCH) % OUTPUTS
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sizes_by_storage = {
        parameter.untyped_storage().data_ptr(): 0 for parameter in model.parameters()
    }

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes_by_storage.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    def step() -> float:
        begin = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - begin

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()  # till then its tensors stay where they are
    return step, sum(sizes_by_storage.values()) / 2**20
