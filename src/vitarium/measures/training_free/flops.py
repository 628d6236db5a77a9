"""Floating-point operations of a forward pass."""

from copy import deepcopy

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitarium.measures.base import EvalModel, NoConfig, Values, measure


@measure("flops", unit="FLOPs", title="FLOPs", quick=False)
def flops(config: NoConfig, subject: EvalModel) -> Values:
    """Floating-point operations of one image's forward pass, a multiplication and addition being 2.

    Those of matrix products, convolutions and attention; torch's counter leaves out norms,
    activations and additions, as papers do.
    """
    # without gradients: else the counter would hook into those of parameters that modules are given
    model = deepcopy(subject.model).requires_grad_(False)
    image = torch.zeros(1, *subject.examples.input_size, device=subject.examples.device)
    # the plain attention is made of matrix products, which are counted on every device
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image)
    return float(counter.get_total_flops())
