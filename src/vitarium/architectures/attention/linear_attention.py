"""A vision transformer with linear attention: kernels of queries and keys instead of a softmax."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import PositiveFloat
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.attention._heads import NO_PROBABILITIES, Heads
from vitarium.architectures.attention._kernelized import (
    FEATURE_MAPS,
    attention_weights,
    linear_attention,
)
from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import Readers, VitDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class LinearAttentionVit(Vit):
    """A ViT whose attention is kernelized and linear in the number of tokens; by default ViT-Ti/16.

    phi(Q) (phi(K)' V), divided by row sums (Katharopoulos et al. 2020, equations 5 and 6).
    """

    feature_map: Literal["relu", "elu1", "softmax"] = "elu1"
    """phi: relu; elu(x) + 1; or softmax, of a query over its channels and of keys over tokens (Shen
    et al. 2021, arXiv 1812.01243)."""
    min_denominator: PositiveFloat = 1e-6
    """Smallest number that a row is divided by: rows of relu may be all zeros, and stay so."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.attn_drop_rate:
            yield NO_PROBABILITIES.format("linear attention")


class LinearAttention(Heads):
    """Tokens [batch, n, dim] -> the same.

    With `fused_attn` false the weights [n, n] are computed and go through `attn_drop`, as measures
    of attention want them; the function is the same.
    """

    feature_map: str
    min_denominator: float
    fused_attn = True

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[batch, heads, n, head_dim] each -> the same."""
        map_query, map_key = FEATURE_MAPS[self.feature_map]
        query, key = map_query(query), map_key(key)
        if self.fused_attn:
            return linear_attention(query, key, value, self.min_denominator)
        weights: Tensor = self.attn_drop(attention_weights(query, key, self.min_denominator))
        return weights @ value


class LinearAttentionTransformer(VisionTransformer):
    """timm's, with linear attention in every block; a `vit`'s weights fit."""

    def __init__(self, config: LinearAttentionVit, num_classes: int) -> None:
        arguments: dict[str, Any] = config.arguments()
        super().__init__(**arguments, attn_layer=LinearAttention, num_classes=num_classes)
        for block in self.blocks:
            attention: Any = block.attn
            attention.feature_map = config.feature_map
            attention.min_denominator = config.min_denominator


class LinearAttentionDeclaration(VitDeclaration):
    """Channels of queries and keys can be exchanged, and not mixed: each is mapped by itself."""

    def attention(self, at: str, attention: Any) -> Readers:
        self.heads_of(at, attention, normed=False, logits_of="permutation")
        return [(f"{at}.qkv", attention.qkv)]


@architecture(
    "linear_attention",
    paper="Katharopoulos et al. 2020, arXiv 2006.16236",
    symmetries=LinearAttentionDeclaration.symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def linear_attention_vit(config: LinearAttentionVit, num_outputs: int) -> nn.Module:
    return LinearAttentionTransformer(config, num_outputs)
