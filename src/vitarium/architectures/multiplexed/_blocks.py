"""Weight multiplexing: blocks that share their large matrices, each with small parts of its own.

A block refers to the shared weights, which are neither its parameters nor in its state_dict.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.layers.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.nn.functional import pad

from vitarium.architectures.multiplexed._relative_positions import RelativePositions
from vitarium.architectures.multiplexed._sharing import LocalNorm, Multiplexing, Start

Norm = Callable[[int], nn.Module]


class Borrowed(nn.Module):
    """A module whose weights belong to another: the block's own place for hooks on its use; inputs
    and outputs [...] are that module's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._lender = (module,)  # in a tuple, so that it does not become a submodule

    @property
    def lender(self) -> nn.Module:
        return self._lender[0]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.lender(inputs)


class SharedAttention(nn.Module):
    """The large matrices of an attention."""

    def __init__(self, dim: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)


class SharedWeights(nn.Module):
    """What the blocks of a group share; their LayerNorms, too, unless these are separate."""

    def __init__(self, dim: int, config: Multiplexing, norm: Norm, *, act_layer: Any) -> None:
        super().__init__()
        self.attn = SharedAttention(dim, qkv_bias=config.qkv_bias)
        hidden, drop = int(dim * config.mlp_ratio), config.proj_drop_rate
        self.mlp = Mlp(dim, hidden, act_layer=act_layer, drop=drop)
        if not config.separate_norms:
            self.norm1, self.norm2 = norm(dim), norm(dim)


class HeadMixing(nn.Module):
    """A linear map over the heads: [batch, heads, n, m] -> the same.

    Talking heads (Shazeer et al. 2020, arXiv 2003.02436). It is a product for each image: one for
    all would take longer, since that of its gradient is not shared among threads.
    """

    def __init__(self, num_heads: int, *, bias: bool = False, start: Start = "identity") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(num_heads))
        self.bias = nn.Parameter(torch.zeros(num_heads)) if bias else None
        if start == "trunc_normal":
            trunc_normal_(self.weight, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        weight = self.weight.expand(
            maps.shape[0], -1, -1
        )  # a len would fix the size of a batch in ONNX
        if self.bias is None:
            return torch.bmm(weight, flat).view(maps.shape)
        return torch.baddbmm(self.bias[:, None], weight, flat).view(maps.shape)


class LocalConvolution(nn.Module):
    """A depth-wise convolution over the patches, with a LayerNorm and a skip connection.

    tokens [batch, prefix_tokens + rows * columns, dim], or [batch, rows, columns, dim] where no
    grid is given -> the same (Zhang et al. 2022, Sec. 3.2). It stands between attention and MLP.
    Tokens before the patches go past the convolution; "stream" normalizes them like the others.

    start: "identity": weights and bias are zero, so that with "branch" nothing changes;
    "trunc_normal": PyTorch's own start, as the authors have it.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        *,
        norm: Norm,
        local_norm: LocalNorm = "branch",
        start: Start = "identity",
        grid: tuple[int, int] | None = None,
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.local_norm, self.grid, self.prefix_tokens = local_norm, grid, prefix_tokens
        self.norm = norm(dim)
        self.convolution = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        if start == "identity":
            for parameter in self.convolution.parameters():
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        stream: Tensor = normed if self.local_norm == "stream" else tokens
        if self.grid is None:
            return stream + self._convolved(normed)
        patches = normed[:, self.prefix_tokens :].unflatten(1, self.grid)
        # the tokens before the patches get zeros
        return stream + pad(self._convolved(patches).flatten(1, 2), (0, 0, self.prefix_tokens, 0))

    def _convolved(self, patches: Tensor) -> Tensor:
        """[batch, rows, columns, dim] -> the same"""
        convolved: Tensor = self.convolution(patches.permute(0, 3, 1, 2))
        return convolved.permute(0, 2, 3, 1)


class MultiplexedAttention(nn.Module):
    """Attention with the group's matrices and the block's own head mixing and positions.

    tokens [batch, n, dim] -> the same (Zhang et al. 2022, Sec. 3.2). Mixed logits pass through
    `logits`, which hooks may scale, and the probabilities through `attn_drop`. There is no fused
    path: maps are mixed before and after the softmax, and the same as multi-query attention, with
    heads as wide as the model, takes 2 to 5 times as long on a CPU.
    """

    fused_attn = False

    def __init__(
        self,
        shared: SharedAttention,
        num_heads: int,
        *,
        before: HeadMixing | None = None,
        after: HeadMixing | None = None,
        positions: RelativePositions | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = shared.qkv.in_features // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = Borrowed(shared.qkv), Borrowed(shared.proj)
        self.before, self.after, self.positions = before, after, positions
        self.logits = nn.Identity()
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    @property
    def probabilities_to(self) -> nn.Module:
        """The part that is handed each head's probabilities, which sum to 1; mixed ones do not."""
        return self.attn_drop if self.after is None else self.after

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, dim = tokens.shape
        heads = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, self.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        maps = self._logits(query * self.scale, key)
        if self.before is not None:
            maps = self.before(maps)
        maps = self._probabilities(self.logits(maps))
        if self.after is not None:
            maps = self.after(maps)
        maps = self.attn_drop(maps)
        attended = maps @ value
        if self.positions is not None:
            attended = self.positions.values(attended, maps)
        output: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, count, dim))
        return self.proj_drop(output)

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        """[batch, heads, n, head_dim] twice, of which the query is scaled: [batch, heads, n, n]"""
        if self.positions is None:
            return query @ key.mT
        return self.positions.logits(query, key)

    def _probabilities(self, maps: Tensor) -> Tensor:
        """Of mixed logits [batch, heads, n, n]."""
        return maps.softmax(dim=-1)


class MultiplexedBlock(nn.Module):
    """A block of a vision transformer with its group's weights: [batch, n, dim] -> the same.

    Of its own are `norm1`, `norm2`, what is in `attn`, `local` and the layer scales `ls1`, `ls2`.
    """

    def __init__(
        self,
        shared: SharedWeights,
        attention: MultiplexedAttention,
        dim: int,
        config: Multiplexing,
        norm: Norm,
        *,
        init_values: float | None = None,
        drop_path: float = 0.0,
        **grid: Any,
    ) -> None:
        """grid: arguments of LocalConvolution."""
        super().__init__()
        own = config.separate_norms
        starts: dict[str, Any] = {"local_norm": config.local_norm, "start": config.mixing_init}
        self.norm1 = norm(dim) if own else Borrowed(shared.norm1)
        self.attn = attention
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.local: nn.Module = nn.Identity()
        if config.convolution:
            self.local = LocalConvolution(dim, config.convolution, norm=norm, **starts, **grid)
        self.norm2 = norm(dim) if own else Borrowed(shared.norm2)
        self.mlp = Borrowed(shared.mlp)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.ls1(self.attn(self.norm1(tokens))))
        tokens = self.local(tokens)
        return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))


# Parts draw from torch's global generator, so their order is part of a model's bits.


def attention_parts(config: Multiplexing, heads: int, *, bias: bool = False) -> dict[str, Any]:
    """Arguments of MultiplexedAttention; bias: the maps over the heads have one."""
    start = config.mixing_init
    return {
        "before": HeadMixing(heads, bias=bias, start=start) if config.mix_before else None,
        "after": HeadMixing(heads, bias=bias, start=start) if config.mix_after else None,
        "attn_drop": config.attn_drop_rate,
        "proj_drop": config.proj_drop_rate,
    }
