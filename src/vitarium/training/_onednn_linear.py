"""Linear layers by oneDNN's float32 matrix products, where torch's own leave half the core unused.

PyTorch multiplies float32 matrices by Intel's MKL, which takes AVX2 on processors of other makers,
whatever they have; oneDNN, which PyTorch brings for convolutions, takes AVX-512. On such a core a
product is 1.4 to 2.2 times as fast.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as functorch_active
from torch.autograd import forward_ad
from torch.nn import functional as F

from vitarium.adaptations._factors import AdaptedLinear

_WORTHWHILE = 4096
"""Weights of the smallest layer that gains: each call costs about 30 microseconds of Python."""


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Inputs [..., in], weight [out, in] and bias [out], float32 on a CPU, to [..., out]."""
    is_forward_ad = forward_ad._current_level >= 0
    if functorch_active() or is_forward_ad or not inputs.numel():
        # what oneDNN's product lacks; an expert to which nothing is sent has no rows
        return F.linear(inputs, weight, bias)
    if torch.is_grad_enabled():
        outputs: Tensor = _Linear.apply(inputs, weight, bias)
        return outputs
    return _product(inputs, weight, bias)


def use_onednn(model: nn.Module) -> None:
    """Let a float32 model on a CPU compute its larger linear layers by oneDNN, in place."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.numel() >= _WORTHWHILE:
            module.__class__ = _OF_ONEDNN.get(type(module), type(module))


class OneDNNLinear(nn.Linear):
    """A linear layer of float32 weights on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return linear(input, self.weight, self.bias)


class OneDNNAdaptedLinear(AdaptedLinear, OneDNNLinear):
    """The same with a change in factors."""


_OF_ONEDNN: dict[type, type[nn.Linear]] = {
    nn.Linear: OneDNNLinear,
    AdaptedLinear: OneDNNAdaptedLinear,
}


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Of [..., n] and the transpose of [m, n], plus [m]: [..., m]"""
    if torch.is_grad_enabled():  # a derivative of a derivative: oneDNN's product has none
        return F.linear(left, right, bias)
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(left, right, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    """The product with its derivatives."""

    # no setup_context: with it torch looks at signatures in every call, which takes half the gain
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # a frozen layer needs none of its inputs
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight)
        outputs = _product(inputs, weight, bias)
        # no view, for those may not be changed in place where they come from here
        return outputs.new_empty(0).set_(outputs)  # type: ignore[call-overload]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        of_inputs = of_weight = of_bias = None
        inputs_needed, weight_needed, bias_needed = ctx.needs_input_grad
        if inputs_needed:
            of_inputs = _product(gradient, weight.t())
        if weight_needed or bias_needed:
            rows = gradient.flatten(0, -2)
            if weight_needed:
                of_weight = _product(rows.t(), inputs.flatten(0, -2).t())
            if bias_needed:
                of_bias = rows.sum(0)
        return of_inputs, of_weight, of_bias
