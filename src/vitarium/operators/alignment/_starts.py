"""A matching depends on where it starts: several starts, of which the best is kept."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms
from vitarium.core.seeds import derive
from vitarium.operators.alignment._matching import TOLERANCE, Kinds, Matching
from vitarium.operators.base import Report


def matched(
    symmetries: Symmetries,
    fixed: Mapping[str, Tensor],
    moving: Mapping[str, Tensor],
    kinds: Kinds,
    *,
    restarts: int = 2,
    sweeps: int = 100,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    report: Report = lambda done, of: None,
) -> Matching:
    """Match two models by their weights [*shape]; the result's `moves` transform the second.

    The first start is the models as they are, the second what follows from the model's ends
    (`Matching.settle`), all others are random. Further arguments: see `Matching`.
    """
    best: Matching | None = None
    for number in range(restarts):
        report(number, restarts)
        order = torch.Generator().manual_seed(derive(seed, "matching", number))
        start = _random(symmetries, kinds, order) if number > 1 else {}
        matching = Matching(symmetries, fixed, moving, kinds, start=start)
        if number == 1:
            matching.settle()
        matching.ascend(sweeps, tolerance, order)
        if best is None or matching.objective > best.objective + TOLERANCE * matching.scale:
            best = matching
        if best.objective >= (1 - TOLERANCE) * best.scale:
            break
    assert best
    return best


def _random(symmetries: Symmetries, kinds: Kinds, generator: torch.Generator) -> UnitTransforms:
    """Every unit somewhere."""
    transforms = {}
    for name in kinds:
        group = symmetries.groups[name]
        heads = symmetries.groups[group.inside].size if group.inside else None
        permutations = [torch.randperm(group.size, generator=generator) for _ in range(heads or 1)]
        transforms[name] = permutations[0] if heads is None else torch.stack(permutations)
    return transforms
