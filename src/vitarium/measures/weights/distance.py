"""Distance of the weights from their initial values, and from the parent's."""

from vitarium.evaluation.inputs import finite
from vitarium.evaluation.scope import Scope, in_scope
from vitarium.measures.base import Config, NotApplicable, Values, Weights, measure


class DistanceFrom(Config):
    relative: bool = False
    """Divide by the norm of the weights from which the distance is taken."""
    scope: Scope = "trunk"
    """Tensors that are compared: trunk leaves out the head, which a child does not get from its
    parent; all includes the head if its shape is the same."""


@measure("distance_from_start", unit="norm", studies=True)
def distance_from_start(config: DistanceFrom, weights: Weights) -> Values:
    """Euclidean distance of the weights from those before training, of all and of each tensor."""
    return _distance(config, weights, weights.start)


@measure("distance_from_parent", unit="norm", studies=True)
def distance_from_parent(config: DistanceFrom, weights: Weights) -> Values:
    """Euclidean distance of the weights from the parent's, of all and of each tensor."""
    return _distance(config, weights, weights.parent)


def _distance(config: DistanceFrom, weights: Weights, reference: Weights) -> Values:
    """In float64, over tensors that both have in one shape; relatively, zeros have no part."""
    shapes = {name: reference.shapes[name] for name in in_scope(reference, config.scope)}
    names = [n for n in in_scope(weights, config.scope) if shapes.get(n) == weights.shapes[n]]
    if not names:
        raise NotApplicable(f"{weights.name} has no tensor of {reference.name}'s names and shapes")
    squares: dict[str, tuple[float, float]] = {}
    for name in names:
        sides = [finite(f"{m.name}: {name}", m[name]) for m in (weights, reference)]
        new, old = (tensor.double().flatten() for tensor in sides)
        change = new - old
        squares[name] = (float(change.dot(change)), float(old.dot(old)))
    totals = tuple(map(sum, zip(*squares.values(), strict=True)))
    if not config.relative:
        return {"": totals[0] ** 0.5, **{name: moved**0.5 for name, (moved, _) in squares.items()}}
    if not totals[1]:
        raise NotApplicable(f"{weights.name}: all weights of {reference.name} are zero")
    parts = {name: (moved / norm) ** 0.5 for name, (moved, norm) in squares.items() if norm}
    return {"": (totals[0] / totals[1]) ** 0.5, **parts}
