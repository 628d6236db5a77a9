"""Weight multiplexing inside of windows: what a block of Mini-Swin has beyond one of Mini-DeiT."""

from typing import Any, cast

import torch
from timm.layers.helpers import to_2tuple
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.layers.weight_init import trunc_normal_
from timm.models import swin_transformer as swin
from torch import Tensor, nn
from torch.nn.functional import pad

from vitarium.architectures.multiplexed import _blocks as blocks
from vitarium.architectures.multiplexed._sharing import Multiplexing
from vitarium.core.errors import InvalidInput

Size = tuple[int, int]
"""Rows and columns."""
_ELSEWHERE = -100.0  # added to the logits of two patches that are no neighbors, as Swin has it


class SharedWindowAttention(blocks.SharedAttention):
    """The large matrices of an attention and, with `position_bias`, a bias for each head for where
    two patches of a `window` stand: `relative_position_bias_table`."""

    relative_position_bias_table: nn.Parameter | None
    relative_position_index: Tensor

    def __init__(
        self, dim: int, num_heads: int, window: Size, *, qkv_bias: bool, position_bias: bool
    ) -> None:
        super().__init__(dim, qkv_bias=qkv_bias)
        self.window = window
        self.register_parameter("relative_position_bias_table", None)
        if position_bias:
            table = torch.empty(_offsets(window), num_heads)
            self.relative_position_bias_table = nn.Parameter(trunc_normal_(table, std=0.02))
            self._index()

    def position_bias(self) -> Tensor | None:
        """[heads, patches, patches] of a window"""
        if self.relative_position_bias_table is None:
            return None
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def set_window(self, window: Size) -> None:
        """Take other windows; the table is resampled.

        Raises InvalidInput for a table of windows that are not square: not every timm can do that.
        """
        before, table = self.window, self.relative_position_bias_table
        if table is not None and window != before:
            if before[0] != before[1]:
                raise InvalidInput(
                    f"the position bias is of windows of {before[0]} by {before[1]}; only that of "
                    "square ones can be resampled, so start from a model with square windows"
                )
            shape = (_offsets(window), table.shape[1])
            resampled = resize_rel_pos_bias_table(table.detach(), window, shape)
            self.relative_position_bias_table = nn.Parameter(resampled, table.requires_grad)
        self.window = window
        if table is not None:
            self._index()

    def _index(self) -> None:
        device = cast(Tensor, self.relative_position_bias_table).device
        index = swin.get_relative_position_index(*self.window).to(device)
        self.register_buffer("relative_position_index", index, persistent=False)


class SharedWindowWeights(blocks.SharedWeights):
    """What the blocks of a group share, the position bias of their windows included."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Size,
        config: Multiplexing,
        norm: blocks.Norm,
        *,
        position_bias: bool,
    ) -> None:
        super().__init__(dim, config, norm, act_layer=nn.GELU)
        self.attn = SharedWindowAttention(
            dim, num_heads, window, qkv_bias=config.qkv_bias, position_bias=position_bias
        )


class MultiplexedWindowAttention(blocks.MultiplexedAttention):
    """Attention inside of windows, with the group's matrices and the block's own head mixing.

    maps [batch, rows, columns, dim] -> the same (Liu et al. 2021, arXiv 2103.14030, Sec. 3.2). In
    order: position bias, head mixing, mask, softmax, head mixing. The mask is used in shifted
    passes alone, so that identity mixing gives Swin; the authors' code uses it in all passes.

    `shifted` windows are moved by half of their size, where the map is larger than they are.
    """

    mask: Tensor | None
    """[windows, patches, patches], or none in passes that are not shifted."""

    def __init__(
        self,
        shared: SharedWindowAttention,
        num_heads: int,
        *,
        resolution: Size,
        shifted: bool,
        **attention_settings: Any,
    ) -> None:
        super().__init__(shared, num_heads, **attention_settings)
        self.shared = blocks.Borrowed(shared)
        self.shifted = shifted
        self.set_resolution(resolution)

    @property
    def window(self) -> Size:
        return cast(SharedWindowAttention, self.shared.lender).window

    def set_resolution(self, resolution: Size) -> None:
        """Take maps of another size, cut into the windows that the shared weights are for."""
        (rows, columns), (high, wide) = resolution, self.window
        self.shift = (
            high // 2 if self.shifted and rows > high else 0,
            wide // 2 if self.shifted and columns > wide else 0,
        )
        below, right = -rows % high, -columns % wide
        self.padding = (0, 0, 0, right, 0, below)
        mask = _mask((rows + below, columns + right), self.window, self.shift)
        device = next(self.qkv.lender.parameters()).device
        self.register_buffer("mask", mask if mask is None else mask.to(device), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        rows, columns = maps.shape[1:3]
        down, right = self.shift
        if any(self.shift):
            maps = maps.roll((-down, -right), (1, 2))
        padded = pad(maps, self.padding) if any(self.padding) else maps
        windows = swin.window_partition(padded, self.window).flatten(1, 2)
        attended = super().forward(windows).unflatten(1, self.window)
        maps = swin.window_reverse(attended, self.window, *padded.shape[1:3])[:, :rows, :columns]
        return maps.roll((down, right), (1, 2)) if any(self.shift) else maps

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        bias = cast(SharedWindowAttention, self.shared.lender).position_bias()
        products = super()._logits(query, key)
        return products if bias is None else products + bias

    def _probabilities(self, maps: Tensor) -> Tensor:
        if self.mask is not None:
            maps = (maps.unflatten(0, (-1, len(self.mask))) + self.mask[:, None]).flatten(0, 1)
        return super()._probabilities(maps)


class MultiplexedWindowBlock(blocks.MultiplexedBlock):
    """A block of a Swin transformer with its group's weights: [batch, rows, columns, dim]."""

    def set_input_size(
        self, feat_size: Size, window_size: int | Size, always_partition: bool | None = None
    ) -> None:
        """Take maps of another size, as timm's blocks do; the group's table is resampled."""
        if always_partition:
            raise InvalidInput("windows are cut to the map's size; leave out always_partition")
        attention = cast(MultiplexedWindowAttention, self.attn)
        shared = cast(SharedWindowAttention, attention.shared.lender)
        shared.set_window(fitting_window(feat_size, to_2tuple(window_size)))
        attention.set_resolution(feat_size)


def fitting_window(resolution: Size, window: Size) -> Size:
    """A window that is no larger than the map."""
    return (min(resolution[0], window[0]), min(resolution[1], window[1]))


def _offsets(window: Size) -> int:
    """How many ways two patches of a window can stand to each other."""
    return (2 * window[0] - 1) * (2 * window[1] - 1)


def _mask(resolution: Size, window: Size, shift: Size) -> Tensor | None:
    """Keeps apart what a shift brings into one window from opposite sides of the map."""
    if not any(shift):
        return None
    rows, columns = (
        (positions >= size - across).int() + (positions >= size - shifted_by).int()
        for size, across, shifted_by in zip(resolution, window, shift, strict=True)
        for positions in [torch.arange(size)]
    )
    regions = 3 * rows[:, None] + columns
    windows = swin.window_partition(regions[None, :, :, None], window).flatten(1)
    return (windows[:, None] != windows[:, :, None]) * _ELSEWHERE
