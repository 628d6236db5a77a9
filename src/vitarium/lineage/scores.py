"""Stand-in for the scores of a forest; the real file replaces it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """What a recovered forest is worth where the truth is known."""

    node_accuracy: float | None = None
    node_accuracy_up_to_ties: float | None = None
    parent_accuracy: float | None = None
    edge_precision: float | None = None
    edge_recall: float | None = None
    undirected_edge_accuracy: float | None = None
    root_accuracy: float | None = None
    adjusted_rand_index: float | None = None
    mixtures_found: float | None = None
    mother_accuracy: float | None = None
