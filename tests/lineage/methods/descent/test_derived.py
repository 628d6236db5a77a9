"""Models that are equal apart from their heads are put in order by these."""

import torch

from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import Edge, ModelSet
from vitarium.lineage.methods.descent._derived import copy_groups, with_copies

NOISE = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=NOISE)


def model_set(**models):
    """Models by name: a trunk, and a head or None."""
    named = [
        Weights(name, {"trunk": trunk, **({} if head is None else {"head.weight": head})})
        for name, (trunk, head) in models.items()
    ]
    return ModelSet(named, ["trunk"])


def edges_of(edges):
    return {(edge.parent, edge.child): edge for edge in edges}


TRUNKS = [draw(8, 8) for _ in range(3)]
OLD, NEW = draw(4, 8), draw(4, 8)


def test_equal_trunks_are_one_group_whatever_their_heads():
    groups = copy_groups(
        model_set(b=(TRUNKS[0], OLD), a=(TRUNKS[0], NEW), c=(TRUNKS[1], OLD)), permuted=()
    )
    assert sorted(groups) == [["a", "b"], ["c"]]


def test_what_was_rearranged_stands_for_nobody():
    assert copy_groups(model_set(a=(TRUNKS[0], None), b=(TRUNKS[0], None)), permuted={"a"}) == [
        ["b", "a"]
    ]


def test_heads_tell_who_was_first_and_whose_the_children_are():
    """before -> end (same head) = start of a new training (new head) -> after (new head)."""
    models = model_set(
        before=(TRUNKS[0], OLD),
        end=(TRUNKS[1], OLD + 0.1 * draw(4, 8)),
        a_start=(TRUNKS[1], NEW),
        after=(TRUNKS[2], NEW + 0.1 * draw(4, 8)),
    )
    tree = [Edge("before", "a_start", 0.9), Edge("a_start", "after", 0.8)]
    edges = edges_of(with_copies(tree, [["a_start", "end"]], models, permuted=()))
    assert set(edges) == {("before", "end"), ("end", "a_start"), ("a_start", "after")}
    assert edges["end", "a_start"].kind == "copy"
    assert edges["end", "a_start"].confidence == 0.5
    assert edges["before", "end"].confidence == 0.9


def test_without_related_heads_the_first_by_name_has_the_children():
    models = model_set(
        a=(TRUNKS[0], OLD), b=(TRUNKS[0], NEW), c=(TRUNKS[1], draw(4, 8)), d=(TRUNKS[2], None)
    )
    tree = [Edge("a", "c", 1.0), Edge("a", "d", 1.0)]
    edges = edges_of(with_copies(tree, [["a", "b"]], models, permuted=()))
    assert set(edges) == {("a", "c"), ("a", "d"), ("a", "b")}


def test_a_rearranged_copy_is_called_so():
    models = model_set(a=(TRUNKS[0], None), b=(TRUNKS[0], None))
    (edge,) = with_copies([], [["a", "b"]], models, permuted={"b"})
    assert (edge.parent, edge.child, edge.kind) == ("a", "b", "permuted")
