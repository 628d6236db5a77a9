"""The recovered lineage of a set of models: which descends from which, and how probable it is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal["trained", "copy", "merged", "quantised", "pruned", "low_rank", "permuted"]
"""What became of the parent: it was trained further, fully or by a difference of low rank (LoRA);
copied, merged with others, stored with fewer values, set to zero in part; or its units were
permuted."""


@dataclass(frozen=True)
class Edge:
    """A parent and its child."""

    parent: str
    child: str
    confidence: float
    """Probability in [0, 1] that the edge is right, as the method sees it."""
    share: float = 1.0
    """Of the child that is this parent's: less than 1 where it is a mixture of several."""
    kind: Kind = "trained"


@dataclass(frozen=True)
class Forest:
    """Recovered lineage of a set of models: trees, in which a merged model has several parents.

    Args:
        method: what recovered it.
        models: all names, in the model set's order.
        families: for every model the number of its tree, from 0, in order of appearance.
        edges: no circle among them; a model without an edge to it is a root.
        roots: by name, the probability that a root is one, in [0, 1].
        tied: groups of models with equal weights; each could stand in the other's place.
        notes: what a user should know, as sentences.
    """

    method: str
    models: Sequence[str]
    families: Sequence[int]
    edges: Sequence[Edge]
    roots: Mapping[str, float]
    tied: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    @cached_property
    def parents(self) -> dict[str, dict[str, Edge]]:
        """By child, then by parent, the edge between them; a root has none."""
        parents: dict[str, dict[str, Edge]] = {model: {} for model in self.models}
        for edge in self.edges:
            parents[edge.child][edge.parent] = edge
        return parents

    @cached_property
    def trees(self) -> list[list[str]]:
        """Names of the models of each family, by its number."""
        members = defaultdict(list)
        for model, family in zip(self.models, self.families, strict=True):
            members[family].append(model)
        return [members[family] for family in sorted(members)]
