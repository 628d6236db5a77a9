"""A ViT on the maps of a trained image codec, which stays as it is."""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from vitarium.architectures.heads import is_head
from vitarium.architectures.tokens.image_codec import ImageCodec, ImageCodecConfig
from vitarium.core import seeds
from vitarium.core.config import Config, InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


class TokensOfCodec(Config):
    """Sizes of the ViT; what the codec decides follows from it."""

    embed_dim: PositiveInt = 192
    """Width of the residual stream: features per token."""
    depth: PositiveInt = 12
    """Number of transformer blocks."""
    num_heads: PositiveInt = 3
    """Attention heads per block; embed_dim has to be a multiple of it."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of each MLP, as a multiple of embed_dim."""
    class_token: bool = False
    """Put a learned class token before the patches."""
    global_pool: Literal["token", "avg"] = "avg"
    """Features that the head sees: the class token (token), or the mean of the patches (avg)."""
    seed: NonNegativeInt = 0
    """Random seed of all weights but the codec's."""


def tokens_architecture(config: TokensOfCodec, architecture: Section | None) -> Section:
    """The `ci2p`, whose patches are twice the codec's stride. Raises IncompatibleWeights for what
    is no `image_codec`, and for sizes that no ViT has."""
    if architecture is None or not isinstance(codec := architecture.config, ImageCodecConfig):
        name = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"ci2p needs an image_codec, not {name}")
    return _ci2p(config, codec)


def _ci2p(config: TokensOfCodec, codec: ImageCodecConfig) -> Section:
    of_codec: dict[str, Any] = {
        "img_size": codec.img_size,
        "in_chans": codec.in_chans,
        "patch_size": 2 ** (codec.num_convs + 1),
        "codec": "trained",
        "codec_channels": codec.channels,
        "codec_width": codec.width,
    }
    try:
        return choose("architecture", "ci2p", **of_codec, **config.model_dump(exclude={"seed"}))
    except InvalidConfig as error:
        raise IncompatibleWeights(f"this codec has no such ViT: {error}") from None


@operator(
    "ci2p",
    title="CI2P tokens",
    models=(1, 1),
    architecture=tokens_architecture,
    paper="Zhao & Sun 2025, arXiv 2502.10120",
    tiny={"embed_dim": 16, "depth": 1, "num_heads": 2},
    tiny_architecture={"name": "image_codec", "num_convs": 1, "width": 4, "channels": 6},
)
def ci2p(config: TokensOfCodec, ingredients: Ingredients) -> NamedTensors:
    """A `ci2p` whose frozen codec is a trained `image_codec`; the rest of it is drawn by `seed`.

    Yields (name, tensor [*shape]). Train it next: only the codec has learned anything. A linear
    head is drawn anew, too. Raises IncompatibleWeights for any other head.
    """
    (model,) = ingredients
    codec = model.skeleton
    assert isinstance(codec, ImageCodec)  # `tokens_architecture` has seen to it
    with seeds.seeded(config.seed):
        started: nn.Module = _ci2p(config, codec.config)(codec.num_classes)
    heads = {name for name in ingredients.shapes if is_head(codec, name)}
    if not heads <= started.state_dict().keys():
        raise IncompatibleWeights(f"{model.name}: its head is not linear; train it without one")
    for name, drawn in started.state_dict().items():
        layer = name.removeprefix("patch_embed.codec.")
        if layer != name:
            yield name, checked(model, f"layers.{layer}")
        elif not is_head(started, name) or name in heads:
            yield name, drawn
