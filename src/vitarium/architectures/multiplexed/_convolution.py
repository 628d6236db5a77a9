"""Local convolution: what lets blocks with equal matrices see their surroundings differently."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, NonNegativeInt
from torch import Tensor, nn
from torch.nn.functional import pad

from vitarium.architectures.multiplexed._head_mixing import Start


def _odd_or_none(size: int) -> int:
    if size and size % 2 == 0:
        raise ValueError(
            f"a kernel of {size} has no middle; use {size - 1} or {size + 1}, or 0 for none"
        )
    return size


KernelSize = Annotated[NonNegativeInt, AfterValidator(_odd_or_none)]
"""Rows and columns of patches that the convolution sees; odd, or 0 for no convolution."""

LocalNorm = Literal["branch", "stream"]
"""branch: x + convolution(norm(x)); stream: norm(x) + convolution(norm(x)), as MiniViT released."""


class LocalConvolution(nn.Module):
    """A depth-wise convolution over the patches, with a LayerNorm and a skip connection.

    tokens [batch, prefix_tokens + rows * columns, dim], or [batch, rows, columns, dim] where no
    grid is given -> the same (Zhang et al. 2022, Sec. 3.2). It stands between attention and MLP.
    Tokens before the patches go past the convolution; "stream" normalises them like the others.

    Args:
        norm: makes a LayerNorm of that width.
        start: "identity": weights and bias are zero, so that with "branch" nothing changes;
            "trunc_normal": PyTorch's own start, as the authors have it.
        grid: rows and columns of the patches.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        *,
        norm: Callable[[int], nn.Module],
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
