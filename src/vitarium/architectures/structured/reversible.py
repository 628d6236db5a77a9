"""Reversible vision transformers: two streams, whose inputs follow from their outputs."""

from typing import Any, Literal

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.base import architecture
from vitarium.architectures.structured._recomputed import through_blocks
from vitarium.architectures.symmetries.vit import NOTHING, Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.errors import InvalidInput

FusionKind = Literal["concat", "add", "mean", "max", "min"]
"""Of two streams [..., 2 * dim]: side by side, or their sum, mean, larger or smaller entries."""


class ReversibleVit(Vit):
    """A reversible ViT: its activations follow from its outputs, so that training stores no others.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    fusion: FusionKind = "concat"
    """What becomes of the two streams after the last block: side by side (concat; the head sees
    twice as many features), or their sum (add), mean, larger (max) or smaller entries (min)."""
    recompute: bool = True
    """Compute activations again in the backward pass, in memory that does not grow with depth;
    false: store them, as others do."""


class ReversibleBlock(Block):
    """y1 = x1 + attention(norm1(x2)), y2 = x2 + mlp(norm2(y1)), of streams side by side.

    tokens [batch, n, 2 * dim] -> the same; it has the weights of the plain block.
    """

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        branch: Literal["both", "attention", "mlp"] = "both",
    ) -> Tensor:
        """With a branch's name: what that adds to one stream, of the other, [batch, n, dim]."""
        if attn_mask is not None or is_causal:
            raise InvalidInput("reversible blocks take no attention mask")
        outputs: Tensor
        match branch:
            case "attention":
                outputs = self.drop_path1(self.attn(self.norm1(x)))
            case "mlp":
                outputs = self.drop_path2(self.mlp(self.norm2(x)))
            case "both":
                first, second = x.chunk(2, dim=-1)
                first = first + self.forward(second, branch="attention")
                second = second + self.forward(first, branch="mlp")
                outputs = torch.cat([first, second], dim=-1)
        return outputs

    def inverse(self, y: Tensor) -> Tensor:
        """The tokens [batch, n, 2 * dim] of which y is the output, where nothing is random."""
        first, second = y.chunk(2, dim=-1)
        second = second - self.forward(first, branch="mlp")
        first = first - self.forward(second, branch="attention")
        return torch.cat([first, second], dim=-1)


class FusedNorm(LayerNorm):
    """Both streams as one, and its norm: [..., 2 * dim] -> [..., dim], or [..., 2 * dim]."""

    def __init__(self, width: int, eps: float, fusion: FusionKind) -> None:
        super().__init__(width, eps=eps)
        self.fusion: FusionKind = fusion

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = super().forward(fused(x, self.fusion))
        return normed


class Fusion(nn.Module):
    """Both streams as one: [..., 2 * dim] -> [..., dim], or [..., 2 * dim]."""

    def __init__(self, fusion: FusionKind) -> None:
        super().__init__()
        self.fusion: FusionKind = fusion

    def forward(self, streams: Tensor) -> Tensor:
        return fused(streams, self.fusion)


def fused(streams: Tensor, kind: FusionKind) -> Tensor:
    """[..., 2 * dim] -> [..., dim], or as they are."""
    first, second = streams.chunk(2, dim=-1)
    match kind:
        case "concat":
            return streams
        case "add":
            return first + second
        case "mean":
            return (first + second) / 2
        case "max":
            return torch.maximum(first, second)
        case "min":
            return torch.minimum(first, second)


class ReversibleTransformer(VisionTransformer):
    """Blocks over two streams that both start as the embedding; they are fused at the end."""

    def __init__(self, config: ReversibleVit, num_outputs: int) -> None:
        super().__init__(**config.arguments(), block_fn=ReversibleBlock, num_classes=0)
        self.recompute = config.recompute
        width = config.embed_dim * (2 if config.fusion == "concat" else 1)
        if config.global_pool == "token":
            self.norm = FusedNorm(width, config.norm_eps, config.fusion)
        else:  # normalized after the mean of the patches, as in `vit`
            self.norm, self.fc_norm = Fusion(config.fusion), LayerNorm(width, eps=config.norm_eps)
        self.num_classes, self.num_features, self.head_hidden_size = num_outputs, width, width
        if num_outputs:
            self.head = nn.Linear(width, num_outputs)

    def _pos_embed(self, x: Tensor) -> Tensor:
        tokens = super()._pos_embed(x)
        return torch.cat([tokens, tokens], dim=-1)

    def forward_features(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Images [batch, c, h, w] -> tokens [batch, prefix + patches, embed_dim or twice that]"""
        if attn_mask is not None or is_causal:
            raise InvalidInput("reversible blocks take no attention mask")
        tokens = self._pos_embed(self.patch_embed(x))
        recompute = self.recompute and self.training
        features: Tensor = self.norm(through_blocks(self.blocks, tokens, recompute=recompute))
        return features


class ReversibleDeclaration(VitDeclaration):
    """The symmetries of `reversible`: both streams are exchanged alike, as they start alike.

    They are not mixed: side by side they have one mean, and each has its own where it is written.
    """

    mixes_stream = False

    def block(self, at: str, block: Any) -> None:
        """Raises IncompatibleWeights for another kind than `ReversibleBlock`."""
        if not isinstance(block, ReversibleBlock):
            super().block(at, block)
            return
        self.branches(at, block)

    def norm(self, name: str, norm: nn.Module, readers: Readers) -> None:
        """That of both streams side by side has each unit twice."""
        for kind, tensor in norm.state_dict().items():
            shape = (tensor.numel() // self.model.embed_dim, self.model.embed_dim)
            self.piece(f"{name}.{kind}", shape, (NOTHING, self.written), elementwise=True)


@architecture(
    "reversible",
    paper="Mangalam et al. 2022, arXiv 2302.04869",
    presets={
        "rev_vit_small_patch16_224": {"embed_dim": 384, "num_heads": 6},
        "rev_vit_base_patch16_224": {"embed_dim": 768, "num_heads": 12},
    },
    symmetries=ReversibleDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "recompute"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def reversible(config: ReversibleVit, num_outputs: int) -> nn.Module:
    return ReversibleTransformer(config, num_outputs)
