"""A plain ViT with exits: trained at full depth, in eval mode left by each image on its own."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import AuxiliaryLoss
from vitarium.architectures.early_exit._rule import Certainty, EarlyExits, first_exits
from vitarium.core.errors import InvalidInput


class ExitOutputs(NamedTuple):
    """What an exit gives."""

    logits: Tensor
    """[batch, classes]"""
    features: Tensor
    """What its classifier has before it is pooled, [batch, m, width]."""


class TrainingPass(NamedTuple):
    """What the last pass in training mode computed."""

    exits: list[ExitOutputs]
    outputs: Tensor
    """Of the head, [batch, classes], without graph."""
    tokens: Tensor
    """Of the last block, before the norm, [batch, prefix + n, width], without graph."""


class EarlyExitTransformer(VisionTransformer):
    """timm's, with exits; its other weights are those of `vit`.

    In training mode every image goes through all blocks, and the exits add to the loss. In eval
    mode it leaves at the first exit that is certain enough, and later blocks compute the others
    alone: what becomes of it does not depend on its batch. Traced for export, all exits are
    computed and the same outputs chosen.
    """

    exit_prefixes: ClassVar[Sequence[str]] = ("exits",)
    """What belongs to a data set as the head does; see `is_head`."""
    full_depth = False
    """Let no image leave early, whatever the threshold; see `at_full_depth`."""

    def __init__(self, config: EarlyExits, num_classes: int, **arguments: Any) -> None:
        super().__init__(**arguments, num_classes=num_classes)
        self.exit_rule = config
        self.exits = nn.ModuleDict()
        """By the number of the block after which they stand: tokens [batch, prefix + n, width] ->
        ExitOutputs."""
        self.recorded: TrainingPass | None = None

    def add_exits(self, exits: Mapping[int, nn.Module]) -> None:
        """Exits by the number of their block, from 0, in order."""
        self.exits.update({str(number): module for number, module in exits.items()})

    @property
    def exit_depths(self) -> list[int]:
        """Blocks that an image is computed by that leaves at each exit, or at the head."""
        return [int(number) + 1 for number in self.exits] + [len(self.blocks)]

    @property
    def leaves_early(self) -> bool:
        """Whether images leave it before the last block, in eval mode."""
        return self.exit_rule.threshold < 1 and not self.full_depth

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"recorded": None}  # a copy has no graph

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """images [batch, c, h, w] -> outputs [batch, classes]"""
        if self.exits.training:
            return self._recording(x)
        if args or kwargs or not self.leaves_early:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        if torch.compiler.is_compiling():  # what is traced cannot depend on values
            logits = self.exit_logits(x)
            numbers = first_exits(self.exit_rule, logits).view(-1, 1, 1)
            return logits.gather(1, numbers.expand(-1, -1, logits.shape[2])).squeeze(1)
        return self.classified(x)[0]

    def classified(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of images [batch, c, h, w] the outputs [batch, classes], and the number of the exit by
        which each leaves, int64 [batch]; the head is the last."""
        tokens = self._embedded(images)
        inside = torch.arange(len(images), device=images.device)
        numbers = torch.full_like(inside, len(self.exits))
        certainty = Certainty(self.exit_rule.criterion, len(self.exits))
        outputs: Tensor | None = None
        number = 0
        for position, block in enumerate(self.blocks):
            tokens = block(tokens)
            if str(position) not in self.exits:
                continue
            logits = self.exits[str(position)](tokens).logits
            outputs = logits.new_empty(len(images), logits.shape[1]) if outputs is None else outputs
            leaves = certainty.after(logits) > self.exit_rule.threshold
            outputs = outputs.index_copy(0, inside[leaves], logits[leaves])
            numbers[inside[leaves]] = number
            stay = (~leaves).nonzero().squeeze(1)
            if not len(stay):
                return outputs, numbers
            tokens, inside = tokens[stay], inside[stay]
            certainty.keep(stay)
            number += 1
        final = self.forward_head(self.norm(tokens))
        assert outputs is not None  # there are exits
        return outputs.index_copy(0, inside, final.to(outputs.dtype)), numbers

    def exit_logits(self, images: Tensor) -> Tensor:
        """Of all exits and of the head: images [batch, c, h, w] -> [batch, exits + 1, classes]"""
        tokens, exits = self._at_full_depth(images)
        final = self.forward_head(self.norm(tokens))
        return torch.stack([*(outputs.logits for outputs in exits), final], dim=1)

    def _embedded(self, images: Tensor) -> Tensor:
        tokens = self._pos_embed(self.patch_embed(images))
        return self.norm_pre(self.patch_drop(tokens))

    def _at_full_depth(self, images: Tensor) -> tuple[Tensor, list[ExitOutputs]]:
        """Tokens of the last block [batch, prefix + n, width], before the norm, and the exits."""
        tokens, outputs = self._embedded(images), []
        for position, block in enumerate(self.blocks):
            tokens = block(tokens)
            if str(position) in self.exits:
                outputs.append(self.exits[str(position)](tokens))
        return tokens, outputs

    def _recording(self, images: Tensor) -> Tensor:
        tokens, exits = self._at_full_depth(images)
        outputs: Tensor = self.forward_head(self.norm(tokens))
        self.recorded = TrainingPass(exits, outputs.detach(), tokens.detach())
        return outputs

    def auxiliary_loss(self, targets: Tensor) -> AuxiliaryLoss:
        """The exits' loss with targets [batch, classes], times `exit_weight`.

        Logged: it without the weight (exit_loss), and each exit's accuracy. Raises InvalidInput for
        an objective that does not take the model's outputs, or whose outputs are not classes.
        """
        recorded, self.recorded = self.recorded, None
        if recorded is None:
            raise InvalidInput(
                "exits learn from the model's outputs, which this objective does not compute: "
                "choose one that does, such as supervised"
            )
        classes = recorded.exits[0].logits.shape[1]
        if targets.shape[1] != classes or recorded.outputs.shape[1] != classes:
            raise InvalidInput(
                f"exits have {classes} outputs, and there are {targets.shape[1]} classes to learn: "
                "choose an objective whose outputs are classes, such as supervised"
            )
        views = len(recorded.outputs) // len(targets)
        targets = targets.repeat(views, 1)
        loss = self.exit_loss(recorded, targets)
        metrics = {"exit_loss": loss.detach()}
        for number, outputs in zip(self.exits, recorded.exits, strict=True):
            correct = outputs.logits.argmax(1) == targets.argmax(1)
            metrics[f"exit_{number}_accuracy"] = correct.float().mean()
        return AuxiliaryLoss(self.exit_rule.exit_weight * loss, metrics)

    def exit_loss(self, recorded: TrainingPass, targets: Tensor) -> Tensor:
        """A scalar: the mean cross-entropy of the exits with targets [batch, classes], weighted by
        their depths, as later exits can be better."""
        depths = self.exit_depths[:-1]
        losses = cross_entropies(recorded.exits, targets)
        total = torch.stack([d * loss for d, loss in zip(depths, losses, strict=True)]).sum()
        return total / sum(depths)


def cross_entropies(exits: Sequence[ExitOutputs], targets: Tensor) -> list[Tensor]:
    """Of each exit with targets [batch, classes], scalars in float32 at least."""
    wide = torch.promote_types(exits[0].logits.dtype, torch.float32)
    return [F.cross_entropy(outputs.logits.to(wide), targets.to(wide)) for outputs in exits]
