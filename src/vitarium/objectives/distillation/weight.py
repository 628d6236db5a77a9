"""Learn from a teacher's outputs, and from how its tokens relate in every block."""

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
            own = [number for number, _ in self.layers]
            if twice := [number for number in own if own.count(number) > 1]:
                raise ValueError(f"layers: block {twice[0]} of the student is paired twice")
        return self

    def with_teacher_like_student(self) -> Self:
        found = super().with_teacher_like_student()
        if isinstance(self.layers, str):
            return found
        return found.changed({"layers": tuple((own, own) for own, _ in self.layers)})


def block_outputs(
    config: WeightDistillation, teacher: nn.Module, student: nn.Module, example: Tensor
) -> TeacherOutputs:
    """The teacher's outputs, and what happens in its paired blocks, by the student's numbers.

    Raises InvalidInput where classes, tokens or widths do not go together, with both numbers.
    """
    if config.alpha < 1:
        check_classes(teacher, student, example)
    if not (config.relation_weight or config.hidden_weight):
        return lambda images: {OUTPUTS: teacher(images)} if config.alpha < 1 else {}
    pairs = layer_pairs(config.layers, _depth("student", student), _depth("teacher", teacher))
    _check(config, teacher, student, example, pairs)

    def told(images: Tensor) -> dict[str, Tensor]:
        with recording(teacher, **_wanted(config, [theirs for _, theirs in pairs])) as found:
            outputs = teacher(images)
        cut = _cut(config, teacher, found)
        by_name = {f"qkv.{own}": cut.qkv[theirs] for own, theirs in pairs if cut.qkv}
        by_name |= {f"hidden.{own}": cut.hidden[theirs] for own, theirs in pairs if cut.hidden}
        return by_name | ({OUTPUTS: outputs} if config.alpha < 1 else {})

    return told


@objective(
    "weight_distillation",
    config=WeightDistillation,
    **(DISTILLATION | {"teacher_outputs": block_outputs}),
    records_blocks=True,
    paper="Zhang et al. 2022, arXiv 2204.07154",
)
def weight_distillation(config: WeightDistillation, model: nn.Module, batch: Batch) -> Loss:
    """A teacher's probabilities, and how tokens relate to each other in its blocks (MiniViT).

    Outputs [batch, num_classes] against targets and the teacher's outputs of that shape, and blocks
    against blocks; each part is a mean over the batch, the last two over blocks, too.
    """
    told = batch.teacher_outputs or {}
    numbers = sorted({int(name.split(".")[1]) for name in told if name != OUTPUTS})
    with recording(model, **_wanted(config, numbers)) as found:
        outputs = model(batch.images)
    parts = {}
    loss = torch.zeros((), device=outputs.device)
    if config.alpha > 0:
        loss = config.alpha * F.cross_entropy(outputs, batch.targets)
    if config.alpha < 1:
        parts["prediction"] = soft_cross_entropy(outputs, teacher_output(batch), config.temperature)
        loss = loss + (1 - config.alpha) * parts["prediction"]
    cut = _cut(config, model, found)
    if config.relation_weight:
        each = [
            attention_relation(cut.qkv[i], teacher_output(batch, f"qkv.{i}"), config.relation_heads)
            for i in numbers
        ]
        parts["relation"] = torch.stack(each).mean()
        loss = loss + config.relation_weight * parts["relation"]
    if config.hidden_weight:
        each = [
            _hidden(config, cut.hidden[i], teacher_output(batch, f"hidden.{i}")) for i in numbers
        ]
        parts["hidden"] = torch.stack(each).mean()
        loss = loss + config.hidden_weight * parts["hidden"]
    right = outputs.argmax(1) == batch.targets.argmax(1)
    return Loss(loss, **parts, accuracy=right.float().mean())


def _hidden(config: WeightDistillation, own: Tensor, theirs: Tensor) -> Tensor:
    if config.hidden == "mse":
        return hidden_difference(own, theirs)
    return config.hidden_scale * hidden_relation(own, theirs)


def _wanted(config: WeightDistillation, numbers: list[int]) -> dict[str, list[int]]:
    """What to record of which blocks."""
    return {
        "qkv": numbers if config.relation_weight else [],
        "hidden": numbers if config.hidden_weight else [],
    }


def _cut(config: WeightDistillation, model: nn.Module, found: Recorded) -> Recorded:
    """The tokens that count, each block's in one row: [batch, n, ...]"""
    left_out = prefix_tokens(model) if config.tokens == "patches" else 0
    return Recorded(
        {number: qkv[:, left_out:] for number, qkv in found.qkv.items()},
        {number: tokens.flatten(1, -2)[:, left_out:] for number, tokens in found.hidden.items()},
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
    seen = []
    for whose, model, numbers in (
        ("student", student, [own for own, _ in pairs]),
        ("teacher", teacher, [theirs for _, theirs in pairs]),
    ):
        try:
            with recording(model, **_wanted(config, numbers)) as found:
                model(example)
        except InvalidInput as error:
            raise InvalidInput(
                f"the {whose} has no relations to compare: {error}; set relation_weight to 0"
            ) from None
        seen.append(_cut(config, model, found))
    student_saw, teacher_saw = seen
    for own, theirs in pairs:
        where = f"block {own} of the student and block {theirs} of the teacher"
        if config.relation_weight:
            mine, other = student_saw.qkv[own].shape, teacher_saw.qkv[theirs].shape
            _check_tokens(mine, other, where)
            shifts = [window_shift(student, own), window_shift(teacher, theirs)]
            if None not in shifts and shifts[0] != shifts[1]:
                raise InvalidInput(
                    f"{where} have windows that are shifted by {shifts[0]} and {shifts[1]}: pair "
                    "blocks with the same shift by `layers`"
                )
            for whose, shape in (("student", mine), ("teacher", other)):
                if (shape[-1] // 3) % config.relation_heads:
                    raise InvalidInput(
                        f"relation_heads {config.relation_heads} does not divide the {whose}'s "
                        f"width {shape[-1] // 3}; choose a divisor of both models' widths"
                    )
        if config.hidden_weight:
            mine, other = student_saw.hidden[own].shape, teacher_saw.hidden[theirs].shape
            _check_tokens(mine, other, where)
            if config.hidden == "mse" and mine[-1] != other[-1]:
                raise InvalidInput(
                    f"hidden: mse compares tokens of one width, but {where} have {mine[-1]} and "
                    f"{other[-1]}; use hidden: relation"
                )


def _check_tokens(own: torch.Size, theirs: torch.Size, where: str) -> None:
    """Shapes are [batch * windows, n, ...]"""
    if own[:-1] == theirs[:-1]:
        return
    mine, other = (
        f"{shape[1]} tokens" + (f" in each of {shape[0]} windows" if shape[0] > 1 else "")
        for shape in (own, theirs)
    )
    raise InvalidInput(
        f"{where} have {mine} and {other}: their tokens cannot be compared. Use tokens: patches "
        "where only class token or registers differ; otherwise pair other blocks by `layers`, or "
        "choose a teacher with the student's image, patch and window size"
    )
