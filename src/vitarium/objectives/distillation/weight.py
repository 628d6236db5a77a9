"""Weight distillation: a teacher's outputs, and the relations of its tokens in every block."""

from typing import Literal, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.features import prefix_tokens
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, TeacherOutputs, objective
from vitarium.objectives.distillation._layer_pairs import Layers, Pairs, layer_pairs
from vitarium.objectives.distillation._recording import Recorded, depth, recording, window_shift
from vitarium.objectives.distillation._relations import (
    attention_relation,
    hidden_difference,
    hidden_relation,
)
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

    The defaults are those with which MiniViT's authors train Mini-Swin; where the teacher is a
    convolutional network (Mini-DeiT's), use soft_distillation with alpha 1.
    """

    alpha: float = Field(0.0, ge=0, le=1)
    """Weight of the classes; at 1 the teacher's outputs do not count, and it may know others."""
    temperature: PositiveFloat = 1.0
    relation_weight: NonNegativeFloat = 1.0
    """Of the relations of queries, keys and values; 0: they are not looked at."""
    hidden_weight: NonNegativeFloat = 0.1
    """Of the blocks' outputs; 0: they are not looked at."""
    relation_heads: PositiveInt = 1
    """Into so many parts queries, keys and values are cut; both models' widths are multiples."""
    hidden: Literal["relation", "mse"] = "relation"
    """What of the blocks' outputs is compared: the tokens' cosine similarities with each other, or
    the tokens themselves, where both models have one width."""
    hidden_scale: PositiveFloat = 49.0
    """Times the mean squared difference of cosine similarities: 49, a window of Swin, as the
    authors have it."""
    layers: Layers = "every_second"
    """Blocks of the student that learn: every second one counted from the last, `all`, `last`, or a
    list of pairs [student's, teacher's], from 0. A teacher of another depth is paired in
    proportion."""
    tokens: Literal["all", "patches"] = "all"
    """`patches` leaves out class token and registers, which the other model may not have."""

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
    width] and "hidden.3" [batch, n, width]; with windows, [batch * windows, n, ...].

    Raises InvalidInput where classes, tokens or widths do not go together, with both numbers.
    """
    if config.alpha < 1:
        check_classes(teacher, student, example)
    if not (config.relation_weight or config.hidden_weight):
        return lambda images: {OUTPUTS: teacher(images)} if config.alpha < 1 else {}
    pairs = layer_pairs(config.layers, _depth("student", student), _depth("teacher", teacher))
    _check(config, teacher, student, example, pairs)

    def outputs_of(images: Tensor) -> dict[str, Tensor]:
        with recording(
            teacher, **_to_record(config, [teacher_block for _, teacher_block in pairs])
        ) as recorded:
            outputs = teacher(images)
        cut = _cut(config, teacher, recorded)
        by_name = {
            f"qkv.{student_block}": cut.qkv[teacher_block]
            for student_block, teacher_block in pairs
            if cut.qkv
        }
        by_name |= {
            f"hidden.{student_block}": cut.hidden[teacher_block]
            for student_block, teacher_block in pairs
            if cut.hidden
        }
        return by_name | ({OUTPUTS: outputs} if config.alpha < 1 else {})

    return outputs_of


@objective(
    "weight_distillation",
    config=WeightDistillation,
    **(DISTILLATION | {"teacher_outputs": block_outputs}),
    records_blocks=True,
    paper="Zhang et al. 2022, arXiv 2204.07154",
)
def weight_distillation(config: WeightDistillation, model: nn.Module, batch: Batch) -> Loss:
    """Soft cross-entropy with a teacher, and relations of tokens in its blocks (MiniViT).

    Outputs [batch, num_classes] against targets and the teacher's outputs of that shape, and blocks
    against blocks; each part is a mean over the batch, the last two over blocks, too.
    """
    teacher_outputs = batch.teacher_outputs or {}
    numbers = sorted({int(name.split(".")[1]) for name in teacher_outputs if name != OUTPUTS})
    with recording(model, **_to_record(config, numbers)) as recorded:
        outputs = model(batch.images)
    parts = {}
    loss = torch.zeros((), device=outputs.device)
    if config.alpha > 0:
        loss = config.alpha * F.cross_entropy(outputs, batch.targets)
    if config.alpha < 1:
        parts["prediction"] = soft_cross_entropy(outputs, teacher_output(batch), config.temperature)
        loss = loss + (1 - config.alpha) * parts["prediction"]
    cut = _cut(config, model, recorded)
    if config.relation_weight:
        by_block = [
            attention_relation(cut.qkv[i], teacher_output(batch, f"qkv.{i}"), config.relation_heads)
            for i in numbers
        ]
        parts["relation"] = torch.stack(by_block).mean()
        loss = loss + config.relation_weight * parts["relation"]
    if config.hidden_weight:
        by_block = [
            _hidden(config, cut.hidden[i], teacher_output(batch, f"hidden.{i}")) for i in numbers
        ]
        parts["hidden"] = torch.stack(by_block).mean()
        loss = loss + config.hidden_weight * parts["hidden"]
    right = outputs.argmax(1) == batch.targets.argmax(1)
    return Loss(loss, **parts, accuracy=right.float().mean())


def _hidden(config: WeightDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    if config.hidden == "mse":
        return hidden_difference(student, teacher)
    return config.hidden_scale * hidden_relation(student, teacher)


def _to_record(config: WeightDistillation, numbers: list[int]) -> dict[str, list[int]]:
    """What to record of which blocks."""
    return {
        "qkv": numbers if config.relation_weight else [],
        "hidden": numbers if config.hidden_weight else [],
    }


def _cut(config: WeightDistillation, model: nn.Module, recorded: Recorded) -> Recorded:
    """The tokens that count, each block's in one row: [batch, n, ...]"""
    left_out = prefix_tokens(model) if config.tokens == "patches" else 0
    return Recorded(
        {number: qkv[:, left_out:] for number, qkv in recorded.qkv.items()},
        {number: tokens.flatten(1, -2)[:, left_out:] for number, tokens in recorded.hidden.items()},
    )


def _depth(whose: str, model: nn.Module) -> int:
    try:
        return depth(model)
    except InvalidInput as error:
        raise InvalidInput(
            f"the {whose} cannot be compared block by block: {error}; set relation_weight and "
            "hidden_weight to 0, or use soft_distillation"
        ) from None


def _check(
    config: WeightDistillation,
    teacher: nn.Module,
    student: nn.Module,
    example: Tensor,
    pairs: Pairs,
) -> None:
    """Raises InvalidInput unless the shapes of all pairs go together, seen on one image."""
    recordings = []
    for whose, model, numbers in (
        ("student", student, [student_block for student_block, _ in pairs]),
        ("teacher", teacher, [teacher_block for _, teacher_block in pairs]),
    ):
        try:
            with recording(model, **_to_record(config, numbers)) as recorded:
                model(example)
        except InvalidInput as error:
            raise InvalidInput(
                f"the {whose} has no relations to compare: {error}; set relation_weight to 0"
            ) from None
        recordings.append(_cut(config, model, recorded))
    student_saw, teacher_saw = recordings
    for student_block, teacher_block in pairs:
        where = f"block {student_block} of the student and block {teacher_block} of the teacher"
        if config.relation_weight:
            student_shape, teacher_shape = (
                student_saw.qkv[student_block].shape,
                teacher_saw.qkv[teacher_block].shape,
            )
            _check_tokens(student_shape, teacher_shape, where)
            shifts = [window_shift(student, student_block), window_shift(teacher, teacher_block)]
            if None not in shifts and shifts[0] != shifts[1]:
                raise InvalidInput(
                    f"{where} have windows that are shifted by {shifts[0]} and {shifts[1]}: pair "
                    "blocks with the same shift by `layers`"
                )
            for whose, shape in (("student", student_shape), ("teacher", teacher_shape)):
                if (shape[-1] // 3) % config.relation_heads:
                    raise InvalidInput(
                        f"relation_heads {config.relation_heads} does not divide the {whose}'s "
                        f"width {shape[-1] // 3}; choose a divisor of both models' widths"
                    )
        if config.hidden_weight:
            student_shape, teacher_shape = (
                student_saw.hidden[student_block].shape,
                teacher_saw.hidden[teacher_block].shape,
            )
            _check_tokens(student_shape, teacher_shape, where)
            if config.hidden == "mse" and student_shape[-1] != teacher_shape[-1]:
                raise InvalidInput(
                    f"hidden: mse compares tokens of one width, but {where} have "
                    f"{student_shape[-1]} and {teacher_shape[-1]}; use hidden: relation"
                )


def _check_tokens(student: torch.Size, teacher: torch.Size, where: str) -> None:
    """Shapes are [batch * windows, n, ...]"""
    if student[:-1] == teacher[:-1]:
        return
    student_words, teacher_words = (
        f"{shape[1]} tokens" + (f" in each of {shape[0]} windows" if shape[0] > 1 else "")
        for shape in (student, teacher)
    )
    raise InvalidInput(
        f"{where} have {student_words} and {teacher_words}: their tokens cannot be compared. Use "
        "tokens: patches where only class token or registers differ; otherwise pair other "
        "blocks by `layers`, or choose a teacher with the student's image, patch and window size"
    )
