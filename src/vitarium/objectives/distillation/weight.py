"""Weight distillation: a teacher's outputs, and the relations of its tokens in every block."""

from itertools import product
from typing import Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import prefix_tokens, transformer_blocks
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, TeacherOutputs, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation import _blocks as blocks
from vitarium.objectives.distillation import _relations as relations
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    OUTPUTS,
    Distillation,
    check_classes,
    soft_cross_entropy,
    teacher_output,
)


class WeightDistillation(Distillation):
    """alpha cross-entropy with the classes + (1 - alpha) soft cross-entropy with the teacher
    + relation_weight relation + hidden_weight hidden.

    The defaults are Mini-Swin's; where the teacher is a convolutional network (Mini-DeiT's), use
    soft_distillation with alpha 1.
    """

    alpha: float = Field(0.0, ge=0, le=1)
    """Weight of the true classes, from 0 to 1; at 1 the teacher's outputs do not count, and its
    classes may be others."""
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax: logits of student and teacher are divided by it."""
    relation_weight: NonNegativeFloat = 1.0
    """Weight of the loss between the relations of queries, keys and values; 0: not computed."""
    hidden_weight: NonNegativeFloat = 0.1
    """Weight of the loss between the blocks' outputs; 0: not computed."""
    relation_heads: PositiveInt = 1
    """Number of parts into which queries, keys and values are cut for the relations; both models'
    widths have to be multiples of it."""
    hidden: Literal["relation", "mse"] = "relation"
    """What is compared of the blocks' outputs: the tokens' cosine similarities to each other
    (relation), or the tokens themselves (mse), for models of one width."""
    hidden_scale: PositiveFloat = 49.0
    """Factor of the mean squared difference of cosine similarities; 49, the tokens of a window of
    Swin, in the authors' code."""
    layers: blocks.Layers = "every_second"
    """Blocks of the student that learn: every second one counted from the last, `all`, `last`, or a
    list of pairs [student's, teacher's] of block numbers, from 0. A teacher of another depth is
    paired in proportion."""
    tokens: Literal["all", "patches"] = "all"
    """Tokens that are compared: all, or only the patches, without class token and registers, which
    the other model may not have."""

    @model_validator(mode="after")
    def _pairs_are_clear(self) -> Self:
        if not self.layers:
            raise ValueError("layers has no pair; to look into no block set both weights to 0")
        if not isinstance(self.layers, str):
            student_blocks = [number for number, _ in self.layers]
            if twice := [number for number in student_blocks if student_blocks.count(number) > 1]:
                raise ValueError(f"layers: block {twice[0]} of the student is paired twice")
        return self

    def with_teacher_like_student(self) -> Self:
        config = super().with_teacher_like_student()
        if isinstance(self.layers, str):
            return config
        return config.changed({"layers": tuple((block, block) for block, _ in self.layers)})


def block_outputs(
    config: WeightDistillation, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """The teacher's outputs, and queries, keys, values and hidden states of its paired blocks.

    By name, with the student's numbers: "outputs" [batch, num_classes], "qkv.3" [batch, n, 3 *
    width] and "hidden.3" [batch, n, width]; with windows, [batch * windows, n, ...]. Raises
    InvalidInput where classes, tokens or widths do not go together, with both numbers.
    """
    if config.alpha < 1:
        check_classes(teacher, student, example)
    kinds = _kinds(config)
    models = {"student": student, "teacher": teacher}
    pairs = _pairs(config, models) if kinds else ()
    if kinds:
        _check(config, models, example, pairs)

    def outputs_of(images: Tensor) -> dict[str, Tensor]:
        outputs, tokens = _recorded(config, teacher, images, [block for _, block in pairs])
        by_name = {f"{kind}.{s}": tokens[f"{kind}.{t}"] for kind in kinds for s, t in pairs}
        return by_name | ({OUTPUTS: outputs} if config.alpha < 1 else {})

    return outputs_of


@objective(
    "weight_distillation",
    **(DISTILLATION | {"teacher_outputs": block_outputs}),
    records_blocks=True,
    paper="Zhang et al. 2022, arXiv 2204.07154",
)
def weight_distillation(config: WeightDistillation, model: nn.Module, batch: Batch) -> Loss:
    """MiniViT's distillation: from a teacher's outputs, attention relations and hidden states.

    Outputs [batch, num_classes] against targets and the teacher's outputs of that shape, and blocks
    against blocks; each part is a mean over the batch, the last two over blocks, too.
    """
    teacher_outputs = batch.teacher_outputs or {}
    numbers = sorted({int(name.split(".")[1]) for name in teacher_outputs if name != OUTPUTS})
    outputs, tokens = _recorded(config, model, batch.images, numbers)
    parts = {}
    loss = torch.zeros((), device=outputs.device)
    if config.alpha > 0:
        loss = config.alpha * F.cross_entropy(outputs, batch.targets)
    if config.alpha < 1:
        parts["prediction"] = soft_cross_entropy(outputs, teacher_output(batch), config.temperature)
        loss = loss + (1 - config.alpha) * parts["prediction"]
    for kind in _kinds(config):
        by_block = []
        for name in (f"{kind}.{number}" for number in numbers):
            teacher_tokens = teacher_output(batch, name)
            if kind == "qkv":
                part = relations.attention_relation(
                    tokens[name], teacher_tokens, config.relation_heads
                )
            elif config.hidden == "mse":
                part = relations.hidden_difference(tokens[name], teacher_tokens)
            else:
                part = config.hidden_scale * relations.hidden_relation(tokens[name], teacher_tokens)
            by_block.append(part)
        mean = torch.stack(by_block).mean()
        parts["relation" if kind == "qkv" else "hidden"] = mean
        loss = loss + (config.relation_weight if kind == "qkv" else config.hidden_weight) * mean
    return Loss(loss, **parts, accuracy=accuracy(outputs, batch))


def _kinds(config: WeightDistillation) -> list[str]:
    weights = {"qkv": config.relation_weight, "hidden": config.hidden_weight}
    return [kind for kind, weight in weights.items() if weight]


def _recorded(
    config: WeightDistillation, model: nn.Module, images: Tensor, numbers: list[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs for images, and of blocks the tokens that count, in one row: [batch, n, ...]"""
    names = [f"{kind}.{number}" for kind in _kinds(config) for number in numbers]
    with blocks.recording(model, names) as recorded:
        outputs = model(images)
    left_out = prefix_tokens(model) if config.tokens == "patches" else 0
    return outputs, {name: t.flatten(1, -2)[:, left_out:] for name, t in recorded.items()}


def _pairs(config: WeightDistillation, models: dict[str, nn.Module]) -> blocks.Pairs:
    depths = {}
    for whose, model in models.items():
        try:
            depths[whose] = len(transformer_blocks(model))
        except InvalidInput as error:
            raise InvalidInput(
                f"the {whose} cannot be compared block by block: {error}; set relation_weight and "
                "hidden_weight to 0, or use soft_distillation"
            ) from None
    return blocks.layer_pairs(config.layers, depths["student"], depths["teacher"])


def _check(
    config: WeightDistillation, models: dict[str, nn.Module], example: Tensor, pairs: blocks.Pairs
) -> None:
    """Raises InvalidInput unless the shapes of all pairs go together, seen on one image."""
    tokens = []
    for side, (whose, model) in enumerate(models.items()):
        try:
            tokens.append(_recorded(config, model, example, [pair[side] for pair in pairs])[1])
        except InvalidInput as error:
            raise InvalidInput(
                f"the {whose} has no relations to compare: {error}; set relation_weight to 0"
            ) from None
    for pair, kind in product(pairs, _kinds(config)):
        where = f"block {pair[0]} of the student and block {pair[1]} of the teacher"
        shapes = [tokens[side][f"{kind}.{pair[side]}"].shape for side in (0, 1)]
        if shapes[0][:-1] != shapes[1][:-1]:
            have = " and ".join(
                f"{shape[1]} tokens" + (f" in each of {shape[0]} windows" if shape[0] > 1 else "")
                for shape in shapes
            )
            raise InvalidInput(
                f"{where} have {have}: their tokens cannot be compared. Use tokens: patches where "
                "only class token or registers differ; otherwise pair other blocks by `layers`, or "
                "choose a teacher with the student's image, patch and window size"
            )
        widths = {whose: shape[-1] for whose, shape in zip(models, shapes, strict=True)}
        if kind == "qkv":
            shifts = [
                blocks.window_shift(m, block)
                for m, block in zip(models.values(), pair, strict=True)
            ]
            if None not in shifts and shifts[0] != shifts[1]:
                raise InvalidInput(
                    f"{where} have windows that are shifted by {shifts[0]} and {shifts[1]}: pair "
                    "blocks with the same shift by `layers`"
                )
            for whose, width in widths.items():
                if (width // 3) % config.relation_heads:
                    raise InvalidInput(
                        f"relation_heads {config.relation_heads} does not divide the {whose}'s "
                        f"width {width // 3}; choose a divisor of both models' widths"
                    )
        elif config.hidden == "mse" and widths["student"] != widths["teacher"]:
            raise InvalidInput(
                f"hidden: mse compares tokens of one width, but {where} have "
                f"{widths['student']} and {widths['teacher']}; use hidden: relation"
            )
