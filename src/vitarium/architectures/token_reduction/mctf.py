"""MCTF: patches are fused by likeness, attention and size, one attention ahead."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import AuxiliaryLoss, architecture
from vitarium.architectures.token_reduction._attention import parted
from vitarium.architectures.token_reduction._merging import (
    Merge,
    SizedBlock,
    SizedTransformer,
    alternating,
    cosines,
)
from vitarium.architectures.token_reduction._model import ReducingDeclaration, reducing_vit
from vitarium.architectures.token_reduction.evit import quarters
from vitarium.architectures.vit.vit import TRAINING_FACTORS, PlainVit
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput

_MOST_KEPT = 10  # tokens below which no block merges
_LARGEST_TEACHER_R = 7  # of the second pass in training
_CONFIDENT = 0.4  # probability of the labels above which features learn from the second pass


class MultiCriteriaFusion(Config):
    """How many patches are fused, and by what."""

    r: NonNegativeInt = 16
    """Patches that each block but the first fuses into others, at most half of them; 0: none, the
    plain ViT."""
    fused_share: float | None = Field(None, gt=0, le=0.5)
    """In place of r: share of the patches that a block after each quarter of the blocks fuses; the
    authors' fast variant has 0.35."""
    tau_similarity: float = Field(1.0, gt=0)
    """Temperature of the similarity of two patches: (cosine + 1) / 2 to the power 1 / tau."""
    tau_information: float = Field(20.0, ge=0)
    """Temperature of how little is attended to both; 0: it does not count."""
    tau_size: float = Field(40.0, ge=0)
    """Temperature of how few patches both stand for; 0: it does not count."""
    bidirectional: bool = True
    """Half of the patches are fused from one of two sets into the other, then half back."""
    pooling: Literal["attention", "size"] = "attention"
    """Weights of the mean of fused tokens: sizes times the attention to them, or sizes."""
    consistency_weight: NonNegativeFloat = 0.0
    """Weight of the consistency loss while training, the authors' is 3: a second pass that fuses
    fewer patches teaches the features of this one, and learns the labels itself, at about twice the
    time of a step; 0: no second pass."""


class Mctf(PlainVit, MultiCriteriaFusion):
    """MCTF; the defaults are those of ViT-Ti/16. Its weights are those of `vit`, by name and shape.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.r > (patches := (self.img_size // self.patch_size) ** 2):
            yield f"r {self.r}: an image has {patches} patches, and a block fuses half at most"

    def fused_in(self, block: int, patches: int) -> int:
        """How many of so many patches a block fuses, from 0."""
        count = self.r if block else 0
        if self.fused_share is not None:
            count = int(patches * self.fused_share) if block in quarters(self.depth) else 0
        return max(min(count, patches // 2, patches - (_MOST_KEPT - 1)), 0)

    @property
    def most_fused(self) -> int:
        """Patches that the block which fuses most of them fuses, were it the first."""
        patches = (self.img_size // self.patch_size) ** 2
        return max(self.fused_in(block, patches) for block in range(self.depth))


class MctfBlock(SizedBlock):
    """A block that may fuse patches before its attention, whose logits are those of all of them.

    [batch, prefix + n, width] -> [batch, prefix + n - r, width]. Values alone are of the fused
    tokens: of the attention, columns that are fused are added, and rows averaged as the tokens.
    """

    def __init__(self, *args: Any, config: Mctf, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config, self.number = config, depth
        self.prefix = config.reg_tokens + config.class_token

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r = self.config.fused_in(self.number, x.shape[1] - self.prefix)
        bias = self.sizes.bias(self.prefix, x.dtype)
        if not r:
            if bias is None:
                plain: Tensor = super().forward(x, *args, **kwargs)
                return plain
            return self.transformed(self.attended(x, bias)[0])
        attention = self._attention(x, bias)
        x, attention = self._fused(x, attention, r)
        residual = self.drop_path1(self.ls1(self._mixed(self.norm1(x), attention)))
        return self.transformed(x + residual)

    def _attention(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Probabilities [batch, heads, n, n] of tokens [batch, n, width]."""
        part: Any = self.attn
        width = 2 * part.attn_dim
        weight, of_bias = part.qkv.weight[:width], part.qkv.bias
        pair = F.linear(self.norm1(x), weight, None if of_bias is None else of_bias[:width])
        heads = pair.unflatten(-1, (2, part.num_heads, part.head_dim)).permute(2, 0, 3, 1, 4)
        queries, keys = part.q_norm(heads[0]), part.k_norm(heads[1])
        logits = queries * part.scale @ keys.transpose(-2, -1)
        return (logits if bias is None else logits + bias).softmax(-1)

    def _mixed(self, normed: Tensor, attention: Tensor) -> Tensor:
        """What attention [batch, heads, n, n] makes of normed tokens [batch, n, width]."""
        part: Any = self.attn
        start = 2 * part.attn_dim
        of_bias = part.qkv.bias
        values = F.linear(
            normed, part.qkv.weight[start:], None if of_bias is None else of_bias[start:]
        )
        heads = values.unflatten(-1, (part.num_heads, part.head_dim)).transpose(1, 2)
        mixed = part.attn_drop(attention) @ heads
        outputs: Tensor = part.proj_drop(part.proj(mixed.transpose(1, 2).flatten(2)))
        return outputs

    def _fused(self, x: Tensor, attention: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """Tokens [batch, m, width] and attention [batch, heads, m, m] after r are fused."""
        first, patches = parted(x, self.prefix)
        importance = attention.mean((1, 2))[:, self.prefix :].unsqueeze(-1)
        sizes = self.sizes.of(patches)
        fusion = self._fusion(patches, importance, sizes, r)
        weights = sizes * importance if self.config.pooling == "attention" else sizes
        totals = fused(weights, fusion)
        self.sizes.patches = fused(sizes, fusion)
        tokens = torch.cat([first, fused(weights * patches, fusion) / totals], dim=1)
        rows = attention.transpose(1, 2).flatten(2)  # [batch, n, heads * n]
        first, patches = parted(rows, self.prefix)
        rows = torch.cat([first, fused(weights * patches, fusion) / totals], dim=1)
        columns = rows.unflatten(2, (attention.shape[1], -1)).permute(0, 3, 2, 1).flatten(2)
        first, patches = parted(columns, self.prefix)
        columns = torch.cat([first, fused(patches, fusion)], dim=1)
        return tokens, columns.unflatten(2, (attention.shape[1], -1)).permute(0, 2, 3, 1)

    def _fusion(
        self, patches: Tensor, importance: Tensor, sizes: Tensor, r: int
    ) -> tuple[Merge, Merge]:
        """From A into B, and then from B into what stays in A."""
        forth = r // 2 if self.config.bidirectional else r
        scores = self._scores(patches, importance, sizes)
        merge = Merge.of(scores, forth)
        back = scores.gather(1, merge.unmerged.unsqueeze(-1).expand(-1, -1, scores.shape[-1]))
        return merge, Merge.of(back.transpose(1, 2), r - forth)

    def _scores(self, patches: Tensor, importance: Tensor, sizes: Tensor) -> Tensor:
        """Of each pair of a patch in A and one in B: [batch, a, b]"""
        config = self.config
        scores = ((cosines(*alternating(patches)) + 1) / 2) ** (1 / config.tau_similarity)
        for values, tau in ((importance, config.tau_information), (sizes, config.tau_size)):
            if tau:
                inverse = values.to(scores.dtype).reciprocal()
                a, b = alternating(inverse / inverse.amax(1, keepdim=True))
                scores = scores * (a * b.transpose(1, 2)) ** (1 / tau)
        return scores


def fused(tokens: Tensor, fusion: tuple[Merge, Merge]) -> Tensor:
    """Sums of tokens [batch, n, width]: what stays of A, then what stays of B: [batch, n - r,
    width]"""
    forth, back = fusion
    a, b = forth.summed(*alternating(tokens))
    b, a = back.summed(b, a)
    return torch.cat([a, b], dim=1)


class TwoPasses(NamedTuple):
    """Of the same images, by the passes of a step of training."""

    outputs: Tensor
    """[batch, classes]"""
    features: Tensor
    """What the head sees, [batch, width]: by default the normed class token."""
    teacher_outputs: Tensor
    """Of the pass that fuses fewer patches, [batch, classes]."""
    teacher_features: Tensor
    """Of the pass that fuses fewer patches, [batch, width], without graph."""


class ConsistentTransformer(SizedTransformer):
    """A transformer of `MctfBlock`s whose features learn, while it is trained, from those of a pass
    that fuses fewer patches (Sec. 3.4)."""

    recorded: TwoPasses | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"recorded": None}  # a copy has no graph

    @property
    def config(self) -> Mctf:
        """That of its blocks."""
        block: Any = self.blocks[0]
        config: Mctf = block.config
        return config

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """images [batch, c, h, w] -> outputs [batch, classes]"""
        if not self.head.training:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        outputs, features = self._pass(x)
        self.recorded = TwoPasses(outputs, features, *self._teacher_pass(x))
        return outputs

    def _pass(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [batch, classes], and what the head sees, [batch, width]."""
        tokens = self.forward_features(images)
        return self.forward_head(tokens), self.fc_norm(self.pool(tokens))

    @torch.compiler.disable  # r would be compiled in
    def _teacher_pass(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `_pass`, with a random r: at most the authors', and less than this model's."""
        config, below = self.config, min(_LARGEST_TEACHER_R + 1, self.config.most_fused)
        r = int(torch.randint(below, (), device="cpu"))
        blocks: Any = self.blocks
        try:
            for block in blocks:
                block.config = config.model_copy(update={"r": r, "fused_share": None})
            outputs, features = self._pass(images)
        finally:
            for block in blocks:
                block.config = config
        return outputs, features.detach()

    def auxiliary_loss(self, targets: Tensor) -> AuxiliaryLoss:
        """The second pass's cross-entropy with targets [batch, classes], and the consistency loss
        times `consistency_weight`.

        Logged: both (teacher_loss, consistency_loss without its weight), and the share of images
        that are certain enough for the latter (confident_share). Raises InvalidInput for an
        objective that does not take the model's outputs, or whose outputs are not classes.
        """
        passes, self.recorded = self.recorded, None
        if passes is None or passes.outputs.shape[1] != targets.shape[1]:
            raise InvalidInput(
                "consistency_weight asks for a second pass that learns the classes, which are not "
                "what this objective computes: choose one whose outputs are classes, such as "
                "supervised, or set consistency_weight to 0"
            )
        targets = targets.repeat(len(passes.outputs) // len(targets), 1)
        wide = torch.promote_types(passes.outputs.dtype, torch.float32)
        teacher_loss = F.cross_entropy(passes.teacher_outputs.to(wide), targets.to(wide))
        confident = confident_images(passes.outputs.detach().to(wide), targets)
        errors = (passes.features.to(wide) - passes.teacher_features.to(wide)).square().mean(1)
        consistency = (errors * confident).sum() / confident.sum().clamp(min=1)
        return AuxiliaryLoss(
            teacher_loss + self.config.consistency_weight * consistency,
            {
                "teacher_loss": teacher_loss.detach(),
                "consistency_loss": consistency.detach(),
                "confident_share": confident.to(wide).mean(),
            },
        )


def confident_images(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of outputs [batch, classes], of which images the labels have together a probability above
    0.4: bool [batch].

    Labels are the classes whose target [batch, classes] is above the smallest of the image, both of
    an image that is mixed of two: targets may be smoothed.
    """
    labels = targets > targets.amin(1, keepdim=True)
    return (outputs.softmax(1) * labels).sum(1) > _CONFIDENT


class MctfDeclaration(ReducingDeclaration):
    """Those of `vit`, but that channels of the stream are exchanged alone: cosines of its tokens
    decide what is fused, and would not be the same after a norm's mean is taken out of it."""

    mixes_stream = False


@architecture(
    "mctf",
    paper="Lee et al. 2024, arXiv 2403.10030",
    symmetries=MctfDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values", "consistency_weight"),
    tiny={"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "r": 3},
)
def mctf(config: Mctf, num_outputs: int) -> nn.Module:
    """A ViT that fuses patches that are alike, little attended to and small, in most blocks."""
    if config.consistency_weight and config.most_fused:
        return reducing_vit(ConsistentTransformer, MctfBlock, config, num_outputs)
    return reducing_vit(SizedTransformer, MctfBlock, config, num_outputs)
