"""What a method says of a heap of models: which descends from which, and how sure it is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal["trained", "copy", "merged", "quantised", "pruned", "low_rank", "permuted"]
"""What became of the parent: it was trained further, all of it or by a difference of low rank
(LoRA); copied, merged with others, stored with fewer values, set to zero in part; or its units were
rearranged."""


@dataclass(frozen=True)
class Edge:
    """A parent and its child."""

    parent: str
    child: str
    confidence: float
    """In [0, 1]: how probable it is that this is right, as the method sees it."""
    share: float = 1.0
    """Of the child that is this parent's: less than 1 where it is a mixture of several."""
    kind: Kind = "trained"


@dataclass(frozen=True)
class Forest:
    """The recovered lineage of a heap: trees, in which a merged model has several parents.

    Args:
        method: what recovered it.
        models: all names, in the heap's order.
        families: for every model the number of its tree, from 0, in order of appearance.
        edges: no circle among them; a model without an edge to it is a root.
        roots: how sure the method is that a root is one, in [0, 1].
        tied: models that their weights do not tell apart, in groups; each could stand in the
            other's place.
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
        """Of every model: its parents with the edges from them; of a root none."""
        found: dict[str, dict[str, Edge]] = {model: {} for model in self.models}
        for edge in self.edges:
            found[edge.child][edge.parent] = edge
        return found

    @cached_property
    def trees(self) -> list[list[str]]:
        """Models of each family."""
        found = defaultdict(list)
        for model, family in zip(self.models, self.families, strict=True):
            found[family].append(model)
        return [found[family] for family in sorted(found)]
