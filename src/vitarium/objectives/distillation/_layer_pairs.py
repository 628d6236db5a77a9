"""Pairs of blocks: which block of a student learns from which block of its teacher."""

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt

from vitarium.core.errors import InvalidInput

Layers = Literal["every_second", "all", "last"] | tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
"""Blocks of the student by name, or pairs of (student's, teacher's) block, both from 0."""

Pairs = tuple[tuple[int, int], ...]


def layer_pairs(layers: Layers, student: int, teacher: int) -> Pairs:
    """The pairs (student's block, teacher's block) for so many blocks of each, in order.

    "every_second" counts from the last: 1, 3, ..., 11 of 12. Block i of L is paired with the block
    of the teacher that stands as deep: the one with (i + 1) / L of its blocks done, rounded up.

    Raises InvalidInput for a block that one of them does not have.
    """
    if isinstance(layers, str):
        chosen: Sequence[int] = {
            "every_second": range(student - 1, -1, -2),
            "all": range(student),
            "last": (student - 1,),
        }[layers]
        return tuple((i, -(-(i + 1) * teacher // student) - 1) for i in sorted(chosen))
    for whose, count, numbers in (
        ("student", student, [student_block for student_block, _ in layers]),
        ("teacher", teacher, [teacher_block for _, teacher_block in layers]),
    ):
        if missing := [number for number in numbers if number >= count]:
            raise InvalidInput(
                f"layers: the {whose} has no block {missing[0]}: it has {count}, from 0 to "
                f"{count - 1}"
            )
    return tuple(sorted(layers))
