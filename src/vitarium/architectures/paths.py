"""Residual paths: what the embedding, each attention and each MLP add to the stream.

x_{l+1} = x_l + A_l(x_l) + F_l(x_l), with A(x) = MSA(LN1 x) and F(x) = FFN(LN2(x + A(x))), so the
last stream is z = x_0 + sum_l (A_l + F_l): 2 L + 1 components of L blocks, with their layer scales
and stochastic depth (Chang et al. 2023, arXiv 2308.06548; Veit et al. 2016, arXiv 1605.06431).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.core.errors import InvalidInput


class PathBlock(Block):
    """timm's block, which keeps what it adds to the stream until that is taken."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens [batch, n, width] to [batch, n, width]"""
        attended = self.drop_path1(self.ls1(self.attn(self.norm1(x), *args, **kwargs)))
        x = x + attended
        computed = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        self._branches = attended, computed
        return x + computed

    def take_branches(self) -> tuple[Tensor, Tensor]:
        """What attention and MLP added in the last call, [batch, n, width] both; then gone."""
        branches = self._branches
        del self._branches
        return branches


class PathEnsembleTransformer(VisionTransformer):
    """Timm's, whose head sees a sum of its components with a scale for each and every channel.

    `path_scales` [2 depth + 1, width] are those of the embedding, then of each block's attention
    and MLP. Blocks see the stream as it is. A scale that is 0 has no gradient, and stays 0.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, block_fn=PathBlock)
        self.path_scales = nn.Parameter(torch.ones(2 * len(self.blocks) + 1, self.embed_dim))

    def scales(self) -> Tensor:
        """[2 depth + 1, width]"""
        return torch.where(self.path_scales == 0, 0, self.path_scales)

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """images [batch, c, h, w] -> tokens [batch, n, width]"""
        x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
        first, *others = self.scales()
        total, of_blocks = first * x, iter(others)
        block: Any
        for block in self.blocks:
            x = block(x, *args, **kwargs)
            for branch in block.take_branches():
                total = total + next(of_blocks) * branch
        normed: Tensor = self.norm(total)
        return normed


def path_names(model: Any) -> list[str]:
    """ "embed", "blocks.0.attn", "blocks.0.mlp", ... Raises as `recording_paths`."""
    _check(model)
    names = [f"blocks.{n}.{part}" for n in range(len(model.blocks)) for part in ("attn", "mlp")]
    return ["embed", *names]


@contextmanager
def recording_paths(model: Any) -> Iterator[list[Tensor]]:
    """Inside, the components of each call are recorded: [batch, n, width] each, in order.

    With a model's own scales, where it has some: their sum is what its last norm sees. They have
    their graphs. Raises InvalidInput for anything but timm's plain ViT and a `path_ensemble`.
    """
    _check(model)
    recorded: list[Tensor] = []
    scales = model.scales() if isinstance(model, PathEnsembleTransformer) else None

    def record(number: int, component: Tensor) -> None:
        if number == 0:
            recorded.clear()
        recorded.append(component if scales is None else scales[number] * component)

    with ExitStack() as hooks:
        embedded = lambda _, inputs: record(0, inputs[0])  # noqa: E731
        hooks.enter_context(model.blocks[0].register_forward_pre_hook(embedded))
        for number, block in enumerate(model.blocks):
            for offset, part in enumerate((block.drop_path1, block.drop_path2), start=1):
                see = partial(_see, record, 2 * number + offset)
                hooks.enter_context(part.register_forward_hook(see))
        yield recorded


def _see(record: Any, number: int, _: nn.Module, __: Any, output: Tensor) -> None:
    record(number, output)


def pooled_paths(model: Any, recorded: list[Tensor]) -> Tensor:
    """Of recorded components what the head pools: [batch, 2 depth + 1, width]."""
    stacked = torch.stack(recorded, dim=1)
    if model.global_pool == "token":
        return stacked[:, :, 0]
    return stacked[:, :, model.num_prefix_tokens :].mean(2)


def classified(model: Any, pooled: Tensor) -> Tensor:
    """Outputs [..., classes] of sums of pooled components [..., width]."""
    outputs: Tensor = model.head(model.head_drop(model.fc_norm(model.norm(pooled))))
    return outputs


def contributions(model: Any, pooled: Tensor) -> tuple[Tensor, Tensor]:
    """What each component adds to the logits, [batch, 2 depth + 1, classes], and what none of them
    does, [classes], with the LayerNorm's statistics those of the sum: they add up to the logits.

    contribution_k = W (g (c_k - mean(c_k))) / sigma(z), constant = W beta + b. Pooled components
    [batch, 2 depth + 1, width]. Raises InvalidInput for a head that is not linear.
    """
    if not isinstance(model.head, nn.Linear):
        raise InvalidInput("only a linear head's logits are a sum over paths")
    norm: Any = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    deviation = (pooled.sum(1).var(-1, correction=0) + norm.eps).sqrt()
    centered = pooled - pooled.mean(-1, keepdim=True)
    by_path = (norm.weight * centered / deviation[:, None, None]) @ model.head.weight.T
    constant = model.head(norm.bias)
    return by_path, constant


def _check(model: Any) -> None:
    kind = type(model).__name__
    if type(model) not in (VisionTransformer, PathEnsembleTransformer):
        raise InvalidInput(
            f"residual paths are those of a plain vit or a path_ensemble, not {kind}"
        )
    norms = [type(norm) for norm in (model.norm, model.fc_norm)]
    is_plain = model.global_pool in ("token", "avg") and not model.pool_include_prefix
    if nn.Identity not in norms or (model.global_pool == "avg") != (norms[0] is nn.Identity):
        is_plain = False
    if not is_plain or not all(type(block) in (Block, PathBlock) for block in model.blocks):
        raise InvalidInput(f"this {kind} has other blocks or another pooling than a plain vit")
