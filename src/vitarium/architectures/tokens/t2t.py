"""T2T-ViT: tokens that are gathered from overlapping neighborhoods, three times in a row.

images -> soft split -> token module -> soft split -> token module -> soft split -> linear layer

A soft split takes the window of tokens (at first, of pixels) around each place of a coarser grid as
one long token; a token module, attention with an MLP, makes it short again.
"""

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import Readers
from vitarium.architectures.tokens._declaration import TokenizerDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit
from vitarium.core.devices import without_autocast


class T2t(Vit):
    """Tokens-to-token ViT: tokens from overlapping windows, then a ViT; by default T2T-ViT-7.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    patch_size: PositiveInt = 16
    """Pixels between neighboring tokens. Three soft splits share it as their strides, of which the
    last two are 2 or 1: 16 is 4 * 2 * 2, and 4, for small images, is 1 * 2 * 2."""
    embed_dim: PositiveInt = 256
    """Width of the residual stream: features per token."""
    depth: PositiveInt = 7
    """Number of transformer blocks after the token modules."""
    num_heads: PositiveInt = 4
    """Attention heads per block; embed_dim has to be a multiple of it."""
    mlp_ratio: PositiveFloat = 2.0
    """Hidden width of each block's MLP, as a multiple of embed_dim."""
    qkv_bias: bool = False
    """Add a bias to queries, keys and values of the blocks."""
    norm_eps: PositiveFloat = 1e-5
    """Epsilon of every LayerNorm, added to the variance."""
    token_module: Literal["performer", "transformer"] = "performer"
    """Attention of the token modules: linear in the number of tokens, by random features
    (performer), or softmax attention (transformer)."""
    token_dim: PositiveInt = 64
    """Width of the tokens that a token module gives out."""
    token_drop_rate: float = Field(0.1, ge=0, lt=1)
    """Dropout rate inside the token modules, in [0, 1); published: 0.1 with performers, 0 with
    transformers. Models that drop are never trained in stacks."""
    random_features: PositiveInt = 32
    """Random features per performer; published: half of token_dim."""
    feature_seed: NonNegativeInt = 0
    """Seed of the performers' random features, which do not learn. All models of one seed have the
    same: averages of models that differ in it would be of different functions."""
    qk_scale: PositiveFloat | None = None
    """Factor of queries' and keys' products in the blocks; none: head_dim^-0.5. The released
    weights were trained with embed_dim^-0.5 (14_wide: 512^-0.5)."""


class SoftSplit(nn.Module):
    """Windows of a map as tokens: [batch, c, h, w] -> [batch, h * w / stride^2, c * kernel^2].

    A kernel of 2 * stride - 1, at least 3, overlaps its neighbors.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = max(2 * stride - 1, 3), stride
        self.padding = max(stride // 2, 1)
        self.width = channels * self.kernel**2

    def forward(self, maps: Tensor) -> Tensor:
        windows = F.unfold(maps, self.kernel, padding=self.padding, stride=self.stride)
        return windows.transpose(1, 2)


class TokenTransformer(nn.Module):
    """Softmax attention with one head, and an MLP: [batch, n, width] -> [batch, n, token_dim].

    The width changes, so the values stand in for the tokens in the first residual connection; the
    scale is width^-0.5, of the wide tokens.
    """

    def __init__(self, width: int, config: T2t) -> None:
        super().__init__()
        dim, drop = config.token_dim, config.token_drop_rate
        self.norm1 = LayerNorm(width, eps=config.norm_eps)
        self.qkv = nn.Linear(width, 3 * dim, bias=False)
        self.proj, self.proj_drop = nn.Linear(dim, dim), nn.Dropout(drop)
        self.norm2 = LayerNorm(dim, eps=config.norm_eps)
        self.mlp = Mlp(dim, dim, drop=(0.0, drop))
        self.scale = width**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(tokens)).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self._after_attention(value, attended)

    def _after_attention(self, value: Tensor, attended: Tensor) -> Tensor:
        tokens: Tensor = value + self.proj_drop(self.proj(attended))
        return tokens + self.mlp(self.norm2(tokens))


class TokenPerformer(TokenTransformer):
    """The same with attention by random features, linear in the number of tokens."""

    def __init__(self, width: int, config: T2t, features: Tensor) -> None:
        super().__init__(width, config)
        self.qkv = nn.Linear(width, 3 * config.token_dim)
        self.features: Tensor
        self.register_buffer("features", features)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(tokens)).chunk(3, dim=-1)
        return self._after_attention(value, performer_attention(query, key, value, self.features))


def performer_attention(query: Tensor, key: Tensor, value: Tensor, features: Tensor) -> Tensor:
    """Attention with weights in proportion to phi(q) . phi(k), phi(x) = exp(w x - |x|^2 / 2).

    query, key, value [..., n, d], features w [m, d] -> [..., n, d]; for normal features the weights
    tend to softmax(q . k) as m grows (Choromanski et al. 2021, arXiv 2009.14794, Lemma 1). Computed
    in float32 at least. Exponents are shifted by what cancels: by their largest for each feature
    among keys, then for each query, so that none overflows and the weights' sum is at least 1.
    """
    with without_autocast(query):
        wide = torch.promote_types(value.dtype, torch.float32)
        by_query = _exponents(query.to(wide), features.to(wide))
        by_key = _exponents(key.to(wide), features.to(wide))
        largest = by_key.detach().amax(-2, keepdim=True)
        of_key, by_query = (by_key - largest).exp(), by_query + largest
        of_query = (by_query - by_query.detach().amax(-1, keepdim=True)).exp()
        weighted = of_query @ (of_key.transpose(-2, -1) @ value.to(wide))
        total = of_query @ of_key.sum(-2).unsqueeze(-1)
        return (weighted / total).to(value.dtype)


def _exponents(tokens: Tensor, features: Tensor) -> Tensor:
    return tokens @ features.T - tokens.square().sum(-1, keepdim=True) / 2


def orthogonal_features(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Orthogonal directions, as many as there can be, times sqrt(count): [count, dim]

    The same numbers for the same generator's state, on any device.
    """
    drawn = torch.empty(count, dim, device="cpu")
    features: Tensor = nn.init.orthogonal_(drawn, count**0.5, generator=generator)
    return features.to(torch.get_default_device())


def soft_split_strides(patch_size: int) -> tuple[int, int, int]:
    """Strides whose product is patch_size, the last two as near to 2 as they can be."""
    strides = [1, 1]
    for number in (1, 0):
        if patch_size % 2 == 0:
            patch_size, strides[number] = patch_size // 2, 2
    return (patch_size, strides[0], strides[1])


class TokensToToken(nn.Module):
    """images [batch, in_chans, height, width] -> tokens [batch, n, embed_dim]"""

    def __init__(self, config: T2t, **sizes: Any) -> None:
        super().__init__()
        side = config.img_size // config.patch_size
        self.img_size, self.patch_size = (config.img_size,) * 2, (config.patch_size,) * 2
        self.grid_size, self.num_patches = (side, side), side**2
        generator = torch.Generator().manual_seed(config.feature_seed)
        self.splits, self.token_modules = nn.ModuleList(), nn.ModuleList()
        channels, self.grids, side = config.in_chans, list[tuple[int, int]](), config.img_size
        for number, stride in enumerate(soft_split_strides(config.patch_size)):
            split, side = SoftSplit(channels, stride), side // stride
            self.splits.append(split)
            if number < 2:
                self.grids.append((side, side))
                self.token_modules.append(_token_module(split.width, config, generator))
            channels = config.token_dim
        self.proj, self.norm = nn.Linear(split.width, config.embed_dim), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.splits[0](images)
        pairs = zip(self.splits[1:], self.token_modules, self.grids, strict=True)
        for split, token_module, grid in pairs:
            tokens = split(token_module(tokens).transpose(1, 2).unflatten(2, grid))
        projected: Tensor = self.proj(tokens)
        return projected


def _token_module(width: int, config: T2t, generator: torch.Generator) -> nn.Module:
    if config.token_module == "transformer":
        return TokenTransformer(width, config)
    features = orthogonal_features(config.random_features, config.token_dim, generator)
    return TokenPerformer(width, config, features)


class QueryScale(nn.Module):
    """Queries [..., head_dim] times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, queries: Tensor) -> Tensor:
        return queries * self.factor


class T2tVisionTransformer(VisionTransformer):
    """timm's, with tokens from soft splits and fixed positions, a buffer; there is no class of
    timm's for it."""

    def __init__(self, config: T2t, num_outputs: int) -> None:
        tokenizer = partial(TokensToToken, config)
        super().__init__(**config.arguments(), num_classes=num_outputs, embed_layer=tokenizer)
        assert self.pos_embed is not None
        count = self.pos_embed.shape[1]
        del self.pos_embed
        self.register_buffer("pos_embed", sinusoids(count, config.embed_dim).unsqueeze(0))
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        if config.qk_scale is not None:
            for block in self.blocks:
                attention: Any = block.attn
                attention.q_norm = QueryScale(config.qk_scale / attention.scale)


def sinusoids(count: int, width: int) -> Tensor:
    """Positions in a sequence (Vaswani et al. 2017, Sec. 3.5): [count, width]; sines on even
    channels and cosines on odd ones, both of position * 10000^(-2 (channel // 2) / width)."""
    channels = torch.arange(width, dtype=torch.float64) // 2
    rates = 10000.0 ** (-2 * channels / width)
    angles = torch.arange(count, dtype=torch.float64).unsqueeze(1) * rates
    is_even = torch.arange(width) % 2 == 0
    return torch.where(is_even, angles.sin(), angles.cos()).float()


class T2tDeclaration(TokenizerDeclaration):
    def tokenizer(self, at: str, tokenizer: Any) -> None:
        super().tokenizer(at, tokenizer)
        for number, token_module in enumerate(tokenizer.token_modules):
            self.inner_mlp(f"{at}.token_modules.{number}.mlp", token_module.mlp)

    def attention(self, at: str, attention: Any) -> Readers:
        """See the base; a factor of all queries is no norm."""
        self.heads_of(at, attention, normed=False)
        return [(f"{at}.qkv", attention.qkv)]


_MEDIUM: dict[str, Any] = {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0}
_LARGE = {"embed_dim": 448, "depth": 19, "num_heads": 7, "mlp_ratio": 3.0}
_HUGE = {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0}
_TRANSFORMER: dict[str, Any] = {"token_module": "transformer", "token_drop_rate": 0.0}


@architecture(
    "t2t",
    paper="Yuan et al. 2021, arXiv 2101.11986",
    presets={
        "t2t_vit_7": {},
        "t2t_vit_10": {"depth": 10},
        "t2t_vit_12": {"depth": 12},
        "t2t_vit_14": _MEDIUM,
        "t2t_vit_19": _LARGE,
        "t2t_vit_24": _HUGE,
        "t2t_vit_t_14": _MEDIUM | _TRANSFORMER,
        "t2t_vit_t_19": _LARGE | _TRANSFORMER,
        "t2t_vit_t_24": _HUGE | _TRANSFORMER,
        "t2t_vit_14_resnext": _MEDIUM | {"num_heads": 32},
        "t2t_vit_14_wide": _MEDIUM | {"embed_dim": 768, "depth": 4, "num_heads": 12},
    },
    symmetries=T2tDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "token_drop_rate"),
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "token_dim": 8,
        "random_features": 4,
    },
)
def t2t(config: T2t, num_outputs: int) -> nn.Module:
    """Tokens from overlapping windows of an image, gathered three times, then a plain ViT."""
    return T2tVisionTransformer(config, num_outputs)
