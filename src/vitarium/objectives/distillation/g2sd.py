"""G2SD: a small masked autoencoder predicts what a large one's decoder computes."""

from typing import Self

from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.patch_tokens import patch_grid
from vitarium.core.devices import without_autocast
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, TeacherOutputs, objective
from vitarium.objectives.companions import Companions, TeacherWithCompanions
from vitarium.objectives.distillation.base import (
    Distillation,
    at_least_float32,
    teacher_output,
    teacher_ref,
)
from vitarium.objectives.masked.base import (
    Decoded,
    Decoder,
    encode_under_masks,
    initialize,
    prepare,
    random_masks,
    require_encoder,
)

STATES = "states"
"""The name of the teacher's hidden states in `batch.teacher_outputs`, [batch, tokens, width]."""
_BETA = 2.0
_EPS = 1e-6


class G2sd(Decoded, Distillation):
    """Smooth L1 (beta 2) between predicted and normalized hidden states of a teacher's decoder."""

    decoder_dim: PositiveInt = 256
    """Width of the student's own decoder; 256 beside a ViT-S, 128 beside a ViT-Ti in the paper."""
    decoder_depth: PositiveInt = 4
    """Number of its blocks."""
    decoder_heads: PositiveInt = 8
    """Attention heads of a block; decoder_dim has to be a multiple of it."""
    teacher_block: PositiveInt = 4
    """After which block of the teacher's decoder, from 1, its hidden states are the targets."""
    teacher_dim: PositiveInt = 512
    """Width of the teacher's decoder."""

    @model_validator(mode="after")
    def _teacher_has_a_decoder(self) -> Self:
        if teacher_ref(self).is_path:
            raise ValueError(
                f"teacher: '{self.teacher}' is a file, which has no decoder; name a model of the "
                "zoo that was trained by mae with `keep_companions: true`"
            )
        return self


class FeatureDecoder(Decoder):
    """MAE's decoder, whose blocks' output is mapped to another decoder's hidden states.

    encoded [batch, prefix + visible, encoder's width] and masks [batch, n] -> [batch, prefix + n,
    teacher_dim]
    """

    def __init__(self, config: G2sd, model: nn.Module) -> None:
        super().__init__(config, require_encoder(model))
        del self.norm, self.predict  # of pixels
        width = config.teacher_dim
        self.map = nn.Sequential(
            nn.Linear(config.decoder_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.map.apply(initialize)

    def forward(self, encoded: Tensor, masks: Tensor) -> Tensor:
        mapped: Tensor = self.map(self.states(encoded, masks))
        return mapped


class G2sdCompanions(Companions):
    def __init__(self, config: G2sd, model: nn.Module) -> None:
        super().__init__()
        self.decoder = FeatureDecoder(config, model)


class TeacherDecoder(Companions):
    """A decoder such as a teacher's."""

    def __init__(self, config: G2sd, model: nn.Module) -> None:
        super().__init__()
        sizes = {"decoder_dim": config.teacher_dim, "decoder_depth": config.teacher_block}
        self.decoder = Decoder(config.changed(sizes), require_encoder(model))


def decoder_states(
    config: G2sd, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """Hidden states of the teacher's decoder, for the images and the masks of the student.

    Raises InvalidInput where the teacher has no decoder, or its tokens are others.
    """
    assert isinstance(teacher, TeacherWithCompanions)
    decoder = getattr(teacher.companions, "decoder", None)
    if not isinstance(decoder, Decoder):
        raise InvalidInput(
            "the teacher's companions have no decoder of pixels: name a model that was trained by "
            "mae with `keep_companions: true`"
        )
    encoder, own = require_encoder(teacher.model), require_encoder(student)
    tokens = [(*patch_grid(each), each.num_prefix_tokens) for each in (encoder, own)]
    if tokens[0] != tokens[1]:
        texts = [f"{rows} x {columns} patches and {n} others" for rows, columns, n in tokens]
        raise InvalidInput(
            f"the teacher's tokens are {texts[0]}, and the student's {texts[1]}: give the student "
            "the teacher's img_size, patch_size and class token"
        )
    width, depth = decoder.mask_token.shape[0], len(decoder.blocks)
    if width != config.teacher_dim:
        raise InvalidInput(f"the teacher's decoder is {width} wide: set teacher_dim to {width}")
    if depth < config.teacher_block:
        raise InvalidInput(
            f"the teacher's decoder has {depth} blocks: set teacher_block to at most {depth}"
        )

    def states(images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        encoded, _ = encode_under_masks(config, encoder, images, masks)
        return {STATES: decoder.states(encoded, masks, config.teacher_block)}

    return states


@objective(
    "g2sd",
    views=1,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: G2sdCompanions(config, model),
    masks=random_masks,
    prepare=prepare,
    teacher=teacher_ref,
    teacher_outputs=decoder_states,
    teacher_companions=TeacherDecoder,
    paper="Huang et al. 2023, arXiv 2302.14771",
    tiny={
        "mask_ratio": 0.5,
        "decoder_dim": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
        "teacher_block": 1,
        "teacher_dim": 16,
    },
)
def g2sd(config: G2sd, model: nn.Module, batch: Batch, companions: G2sdCompanions) -> Loss:
    """Generic distillation of masked autoencoders: predict what a larger one's decoder computes.

    Both see the same images [batch, c, h, w] with the same masks [batch, n]. The target is the
    output of one of the teacher's blocks, of all tokens, each normalized over its channels; the
    loss is a mean over tokens and channels (Sec. 3.1). Then `hard_distillation` goes on from the
    student's encoder. The authors' models have a head of pixels, a norm before it, and a predictor
    of encoder features, too, which no gradient reaches.
    """
    plain, masks = require_encoder(model), batch.masks
    assert masks is not None
    encoded, _ = encode_under_masks(config, plain, batch.images, masks)
    predicted = companions.decoder(encoded, masks)
    with without_autocast(predicted):
        states = at_least_float32(teacher_output(batch, STATES))
        targets = F.layer_norm(states, states.shape[-1:], eps=_EPS)
        return Loss(F.smooth_l1_loss(at_least_float32(predicted), targets, beta=_BETA))
