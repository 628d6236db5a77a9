"""Relations of tokens in a block, and losses between those of two models."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.objectives.distillation.base import at_least_float32


def attention_relation(student: Tensor, teacher: Tensor, heads: int = 1) -> Tensor:
    """Soft cross-entropy between the relations of queries, keys and values of two blocks.

    For each of the nine pairs (X, Y) of queries, keys and values, and each relation head of width
    d, R = X Y^T / sqrt(d) over tokens; -sum softmax(R of the teacher) log softmax(R of the
    student), mean over pairs, heads, rows and the batch (Zhang et al. 2022, Sec. 3.3).

    student, teacher: [batch, n, 3 * width], of any two widths that `heads` divides -> a scalar,
    with a first gradient for `student`, computed here: nothing of size n^2 is kept for it
    """
    with without_autocast(student):  # 8 bits are few for logits
        rows = _rows(student, heads)
        with torch.no_grad():
            value, gradient = _loss_and_gradient(rows, _rows(teacher, heads))
        return value + (gradient * (rows - rows.detach())).sum()


def hidden_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two blocks' cosine similarities of tokens with each other.

    student, teacher: [batch, n, width], of any two widths -> a scalar
    """
    with without_autocast(student):
        student_unit, teacher_unit = (
            F.normalize(at_least_float32(tokens), dim=-1) for tokens in (student, teacher)
        )
        batch, count, width = student_unit.shape
        if count <= width + teacher_unit.shape[-1]:
            return F.mse_loss(
                student_unit @ student_unit.transpose(-2, -1),
                teacher_unit @ teacher_unit.transpose(-2, -1),
            )
        # |A A' - B B'|^2 = |A' A|^2 - 2 |A' B|^2 + |B' B|^2: nothing of size n^2
        total = (
            _squares(student_unit, student_unit)
            - 2 * _squares(student_unit, teacher_unit)
            + _squares(teacher_unit, teacher_unit)
        )
        return total / (batch * count**2)


def hidden_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the tokens themselves: [batch, n, width] twice -> a scalar"""
    with without_autocast(student):
        return F.mse_loss(at_least_float32(student), at_least_float32(teacher))


def _rows(qkv: Tensor, heads: int) -> Tensor:
    """Tokens of queries, keys and values, one after the other; products of the rows are relations.

    [batch, n, 3 * width] -> [batch, heads, 3n, width / heads]
    """
    parts = at_least_float32(qkv).unflatten(-1, (3, heads, -1))
    rows = parts.permute(0, 3, 2, 1, 4).flatten(2, 3)
    return rows * rows.shape[-1] ** -0.25


def _loss_and_gradient(rows: Tensor, teacher_rows: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its derivative by `rows`; both rows [batch, heads, 3n, width / heads].

    All nine relations are one product [batch, heads, 3n, 3n], with a softmax for each third of a
    row. By a relation R the loss has the derivative softmax(R) - softmax(R of the teacher).
    """
    expected, logs = (
        (side @ side.transpose(-2, -1)).unflatten(-1, (3, -1)) for side in (teacher_rows, rows)
    )
    expected, logs = expected.softmax(dim=-1), logs.log_softmax(dim=-1)
    value = -(expected * logs).sum(dim=-1)
    by_relation = logs.exp_().sub_(expected).flatten(-2)
    # each row stands on both sides of the product
    gradient = (by_relation + by_relation.transpose(-2, -1)) @ rows
    return value.mean(), gradient / value.numel()


def _squares(left: Tensor, right: Tensor) -> Tensor:
    """Sum of squares of all products of columns: [batch, n, a], [batch, n, b] -> a scalar"""
    return (left.transpose(-2, -1) @ right).square().sum()
