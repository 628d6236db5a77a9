"""Linear layers, patch convolutions and attention that compute with quantized numbers."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from timm.layers.attention import Attention, maybe_add_mask, resolve_self_attn_mask
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.quantized._packing import pack, packed_size, unpack
from vitarium.architectures.quantized._quantizers import Quantizer, UniformQuantizer
from vitarium.core.errors import InvalidInput

Execution = Literal["simulated", "int8"]


class FloatWeight(nn.Module):
    """A weight in floating point, `values` [out, *], which a quantizer may round: [out, *]"""

    def __init__(self, values: Tensor, quantizer: nn.Module | None = None) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.quantizer = quantizer or nn.Identity()

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def forward(self) -> Tensor:
        quantized: Tensor = self.quantizer(self.values)
        return quantized

    def packed(self) -> "PackedWeight":
        """The same weight as integers; its quantizer has a scale and a zero point for each row."""
        quantizer: Any = self.quantizer
        packed = PackedWeight(self.shape, quantizer.bits).to(self.values.device)
        with torch.no_grad():
            packed.codes.copy_(pack(quantizer.codes(self.values), quantizer.bits))
            packed.scale.copy_(quantizer.scale.flatten())
            packed.zero_point.copy_(quantizer.zero_point.flatten())
        return packed


class PackedWeight(nn.Module):
    """A weight [out, *] as integers: scale[i] * (code[i, ...] - zero_point[i]).

    `codes` is uint8 [ceil(out * ... * bits / 8)], `scale` float32 [out], `zero_point` uint8 [out].
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    trains_singly = "stores its weights as integers"

    def __init__(self, shape: torch.Size, bits: int) -> None:
        super().__init__()
        self.shape, self.bits = shape, bits
        size = packed_size(shape.numel(), bits)
        self.register_buffer("codes", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(shape[0]))
        self.register_buffer("zero_point", torch.zeros(shape[0], dtype=torch.uint8))
        self._cached: dict[str, Tensor] = {}

    @property
    def packed_counts(self) -> dict[str, int]:
        """See `PacksNumbers`; scales and zero points are no parameters of their own."""
        return {"codes": self.shape.numel(), "scale": 0, "zero_point": 0}

    def forward(self) -> Tensor:
        """In the dtype of the scales: [out, *]"""
        return self._once("values", self._values)

    def integers(self) -> Tensor:
        """Codes less 2^(bits - 1) as int8, and a column of ones: [in, out + 1]"""
        return self._once("integers", self._integers)

    def sums(self) -> Tensor:
        """Of each row of codes less 2^(bits - 1): int32 [out]"""
        return self._once("sums", lambda: self.integers()[:, :-1].sum(0, dtype=torch.int32))

    @property
    def offsets(self) -> Tensor:
        """Zero points less 2^(bits - 1), so that they go with `integers`: [out]"""
        return self.zero_point.to(self.scale.dtype) - self._center

    @property
    def _center(self) -> int:
        return int(2 ** (self.bits - 1))

    def _unpacked(self) -> Tensor:
        """int16 [out, n]"""
        codes = unpack(self.codes, self.bits, self.shape.numel())
        return codes.view(self.shape[0], -1).to(torch.int16)

    def _integers(self) -> Tensor:
        codes = (self._unpacked() - self._center).to(torch.int8)
        return F.pad(codes, (0, 0, 0, 1), value=1).t()

    def _values(self) -> Tensor:
        codes = self._unpacked() - self.zero_point[:, None].to(torch.int16)
        return (codes * self.scale[:, None]).view(self.shape)

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Computed once for the buffers as they are; in a trace each time, as a part of it."""
        if torch.compiler.is_compiling() or self.codes.is_meta:
            return compute()
        if name not in self._cached:
            # outside of inference mode: a gradient may need it later
            with torch.inference_mode(False), torch.no_grad():
                self._cached[name] = compute()
        return self._cached[name]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._cached.clear()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._cached.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": {}}


class QuantizedLinear(nn.Module):
    """x [*, in] -> W Q(x) + b [*, out], of a `nn.Linear`; `input` is Q, `weight` gives W.

    Executed as int8 it multiplies integers, which gives the same but for rounding of the sums;
    where a gradient is asked for, it is simulated.
    """

    def __init__(
        self, layer: nn.Linear, weight: Quantizer | None = None, inputs: Quantizer | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.input = inputs or nn.Identity()
        self.weight: nn.Module = FloatWeight(layer.weight.detach(), weight)
        self.bias = layer.bias
        self.execution: Execution = "simulated"

    def forward(self, x: Tensor) -> Tensor:
        if self.execution == "int8" and not (torch.is_grad_enabled() and x.requires_grad):
            return self._in_integers(x)
        return F.linear(self.input(x), self.weight(), self.bias)

    def _in_integers(self, x: Tensor) -> Tensor:
        """sum_i (x_i - z)(w_i - v) = sum x_i w_i - v sum x_i + (n v - sum w_i) z, in int32."""
        quantizer, weight = self.input, self.weight
        assert isinstance(quantizer, UniformQuantizer)
        assert isinstance(weight, PackedWeight)
        if x.device.type != "cpu":
            raise InvalidInput(f"execution 'int8' is for CPUs: use 'simulated' on {x.device}")
        center = quantizer.levels // 2
        z, v = quantizer.zero_point - center, weight.offsets
        codes = (x / quantizer.scale).round_().add_(z).clamp_(-center, center - 1)
        rows = codes.to(torch.int8).reshape(-1, self.in_features)
        products = torch._int_mm(rows, weight.integers())
        step = quantizer.scale * weight.scale
        outputs = products[:, :-1] * step
        shifts = torch.stack([-v, z * (self.in_features * v - weight.sums())]) * step
        if self.bias is not None:
            shifts[1] += self.bias
        outputs.addmm_(F.pad(products[:, -1:].to(step), (0, 1), value=1.0), shifts)
        return outputs.view(*x.shape[:-1], self.out_features).to(x.dtype)


class QuantizedConv2d(nn.Module):
    """images [batch, in, h, w] -> [batch, out, h', w'], of a `nn.Conv2d` with quantized weights."""

    def __init__(self, layer: nn.Conv2d, weight: Quantizer | None = None) -> None:
        super().__init__()
        self.stride, self.padding = layer.stride, layer.padding
        self.weight: nn.Module = FloatWeight(layer.weight.detach(), weight)
        self.bias = layer.bias

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight(), self.bias, self.stride, self.padding)


class QuantizedAttention(Attention):
    """timm's attention with quantizers of both operands of Q Kᵀ and of A V."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queries, self.keys = nn.Identity(), nn.Identity()
        self.probabilities, self.values = nn.Identity(), nn.Identity()

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """tokens [batch, n, width] -> [batch, n, width]"""
        batch, count, _ = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.queries(self.q_norm(q)), self.keys(self.k_norm(k))
        logits = q @ k.transpose(-2, -1) * self.scale
        mask = resolve_self_attn_mask(count, logits, attn_mask, is_causal)
        probabilities = self.attn_drop(maybe_add_mask(logits, mask).softmax(-1))
        mixed = self.probabilities(probabilities) @ self.values(v)
        outputs = self.proj(mixed.transpose(1, 2).reshape(batch, count, self.attn_dim))
        dropped: Tensor = self.proj_drop(outputs)
        return dropped
