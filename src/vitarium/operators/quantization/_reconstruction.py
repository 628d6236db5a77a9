"""Reconstruction of a quantized model, block by block: outputs are fitted to full precision's."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitarium.operators.quantization._losses import BlockLoss


def reconstruct(
    block: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    loss: BlockLoss,
    groups: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    batch_size: int,
    exact_inputs: Tensor | None = None,
    drop: float = 0.0,
    after: Callable[[], None] | None = None,
    penalty: Callable[[int], Tensor | None] | None = None,
) -> list[float]:
    """Fit a block's parameters so that it makes targets of inputs; gives the loss of each step.

    Args:
        block: computes outputs [b, ...] of inputs [b, ...] by the parameters of `groups`.
        inputs: [images, ...], as the quantized blocks before it make them.
        targets: [images, ...], outputs of the full-precision block.
        loss: what is minimized, by Adam; learning rates fall to 0 by half a period of a cosine.
        groups: parameters and their learning rates, as of an optimizer: `{"params", "lr"}`; with
            `"constant": True` the rate stays.
        steps, batch_size: images of a step are drawn without repetition.
        exact_inputs: [images, ...], as full-precision blocks make them, and `drop`: the probability
            with which an entry of the inputs is such a one (QDrop, Wei et al. 2022, arXiv
            2203.05740).
        after: is called after each step.
        penalty: gives a term to be added to the loss in a step, or None.

    All that is random is drawn from the global generator; see `seeds.seeded`.
    """
    optimizer = torch.optim.Adam([dict(group) for group in groups])
    falling = [group for group in optimizer.param_groups if not group.get("constant")]
    rates = [group["lr"] for group in falling]
    losses = []
    for step in range(steps):
        for group, rate in zip(falling, rates, strict=True):
            group["lr"] = rate * cosine(step, steps)
        chosen = torch.randperm(len(inputs))[:batch_size].to(inputs.device)
        batch = inputs[chosen]
        if drop and exact_inputs is not None:
            exact = torch.rand_like(batch) < drop
            batch = torch.where(exact, exact_inputs[chosen], batch)
        total = loss(block(batch), targets[chosen])
        losses.append(float(total.detach()))
        added = penalty(step) if penalty else None
        optimizer.zero_grad()
        (total if added is None else total + added).backward()
        optimizer.step()
        if after:
            after()
    return losses


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate in a step: from 1 to nearly 0 by half a period of a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
