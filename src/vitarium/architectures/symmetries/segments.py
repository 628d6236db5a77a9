"""Units that can be exchanged inside of segments alone, such as those of a model with smaller ones
inside: where each of these ends, a segment ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

from vitarium.architectures.symmetries.base import Piece, Symmetries, UnitGroup

Ends = Mapping[str, Sequence[int]]
"""By group, where its segments end: rising, up to its number of units."""


def segmented(symmetries: Symmetries, ends: Ends) -> Symmetries:
    """The symmetries that move no unit into another segment.

    A group "stream" becomes "stream.0", "stream.1" and so on, of a segment each, and so do groups
    inside of it. Raises ValueError for segments of a group whose norms can be folded: the units of
    one would be mixed with all others.
    """
    ends = {name: rising for name, rising in ends.items() if len(rising) > 1}
    if mixed := sorted({norm.group for norm in symmetries.norms} & ends.keys()):
        raise ValueError(f"{mixed[0]} can be mixed; its declaration has to say that it is not")
    groups: dict[str, UnitGroup] = {}
    for name, group in symmetries.groups.items():
        if name in ends:
            for number, (start, stop) in enumerate(pairwise((0, *ends[name]))):
                groups[f"{name}.{number}"] = replace(group, size=stop - start)
        elif group.inside in ends:
            for number in range(len(ends[group.inside])):
                groups[f"{name}.{number}"] = replace(group, inside=f"{group.inside}.{number}")
        else:
            groups[name] = group
    pieces = (part for piece in symmetries.pieces for part in _parts(symmetries, piece, ends))
    return replace(symmetries, groups=groups, pieces=tuple(pieces))


def _parts(symmetries: Symmetries, piece: Piece, ends: Ends) -> Iterator[Piece]:
    """One for each combination of segments on its axes."""
    names = [axis.group or "" for axis in piece.axes]
    segments = {name: list(pairwise((0, *ends[name]))) for name in names if name in ends}
    if not segments:
        yield piece
        return
    for numbers in product(*(range(len(ranges)) for ranges in segments.values())):
        number_of = dict(zip(segments, numbers, strict=True))
        axes, ranges = [], list[tuple[int, int] | None]()
        for name, axis in zip(names, piece.axes, strict=True):
            outer = symmetries.groups[name].inside if name else None
            number = number_of.get(name, number_of.get(outer or ""))
            axes.append(axis if number is None else replace(axis, group=f"{name}.{number}"))
            ranges.append(segments[name][number_of[name]] if name in segments else None)
        yield replace(piece, axes=tuple(axes), ranges=tuple(ranges))
