"""Who stands where in a recovered forest, and what is right of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.lineage.base import Edge, Forest
from vitarium.studies.lineage.evaluated import (
    EvaluatedForest,
    Status,
    descriptions,
    evaluated_forests,
    short_name,
    true_forest,
)


def forest(edges, models="abcdef", tied=(), families=None) -> Forest:
    made = [Edge(parent, child, 0.9, share) for parent, child, share in edges]
    return Forest("x", list(models), families or [0] * len(models), made, {}, tied)


def statuses(edges, truth, **more) -> dict[str, str]:
    evaluated = EvaluatedForest(forest(edges, **more), truth, {})
    return {f"{edge.parent}{edge.child}": status for edge, status in evaluated.edges}


TRUTH = {"a": (), "b": ("a",), "c": ("b",), "d": ("b", "c"), "e": ()}


def test_an_edge_is_right_or_wrong_or_not_known():
    found = statuses([("a", "b", 1), ("a", "c", 1), ("a", "f", 1)], TRUTH)
    assert found == {"ab": Status.RIGHT, "ac": Status.WRONG, "af": Status.UNKNOWN}
    assert set(statuses([("a", "b", 1)], None).values()) == {Status.UNKNOWN}


def test_models_are_right_only_with_all_parents_and_no_other():
    one = EvaluatedForest(forest([("a", "b", 1), ("b", "d", 1), ("a", "e", 1)]), TRUTH, {})
    assert one.statuses == {
        "a": Status.RIGHT,
        "b": Status.RIGHT,
        "c": Status.WRONG,
        "d": Status.WRONG,
        "e": Status.WRONG,
        "f": Status.UNKNOWN,
    }
    both = EvaluatedForest(forest([("b", "d", 0.5), ("c", "d", 0.5)]), TRUTH, {})
    assert both.statuses["d"] == Status.RIGHT
    assert both.mixtures == ["d"]


def test_true_edges_that_a_forest_lacks_are_missed():
    found = EvaluatedForest(forest([("b", "d", 1), ("c", "b", 1)]), TRUTH, {})
    missed = {f"{link.parent}{link.child}" for link in found.links if link.status == Status.MISSED}
    assert missed == {"ab", "bc", "cd"}
    elsewhere = EvaluatedForest(forest([], models="bc"), {"b": ("a",), "c": ("b",)}, {})
    assert [(link.parent, link.child) for link in elsewhere.links] == [("b", "c")]


def test_models_that_weights_do_not_tell_apart_stand_for_each_other():
    # c is a copy of b: below which of them d hangs, and which is the other's parent, nobody can say
    truth = {"a": (), "b": ("a",), "c": ("b",), "d": ("b",)}
    found = EvaluatedForest(
        forest([("a", "c", 1), ("c", "b", 1), ("c", "d", 1)], "abcd", [["b", "c"]]), truth, {}
    )
    assert found.statuses == {
        "a": Status.RIGHT,
        "b": Status.TIED,
        "c": Status.TIED,
        "d": Status.TIED,
    }
    assert {status for _, status in found.edges} == {Status.TIED}
    untied = EvaluatedForest(
        forest([("a", "c", 1), ("c", "b", 1), ("c", "d", 1)], "abcd"), truth, {}
    )
    assert set(untied.statuses.values()) == {Status.RIGHT, Status.WRONG}


def test_a_mixture_hangs_below_its_largest_share():
    found = EvaluatedForest(forest([("a", "c", 0.4), ("b", "c", 0.6)], "abc"), None, {})
    assert {row.model: row.parent for row in found.rows} == {"a": None, "b": None, "c": "b"}


def test_large_families_come_first_and_siblings_by_what_is_known_of_them():
    edges = [("b", "c", 1), ("b", "d", 1), ("b", "e", 1)]
    words = {"c": "lr=3", "d": "lr=1", "e": "lr=2"}
    found = EvaluatedForest(forest(edges, families=[0, 1, 1, 1, 1, 2]), None, words)
    assert [row.model for row in found.rows] == ["b", "d", "e", "c", "a", "f"]


def test_families_without_number_are_counted_without_gaps():
    found = EvaluatedForest(forest([], "abc", families=[7, 2, 7]), None, {})
    assert found.families == {"a": 1, "b": 0, "c": 1}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 7), max_size=3, unique=True), min_size=1, max_size=8))
def test_every_model_has_one_row_above_all_of_its_own(parents):
    """Whatever a method gives back, a circle even."""
    models = [str(number) for number in range(len(parents))]
    edges = [
        (str(p), str(child), 1 / len(of))
        for child, of in enumerate(parents)
        for p in of
        if p < len(parents)
    ]
    rows = EvaluatedForest(forest(edges, models), None, {}).rows
    assert sorted(row.model for row in rows) == models
    assert [row.row for row in rows] == list(range(len(models)))
    by_model = {row.model: row for row in rows}
    for row in rows:
        below, seen = row, set()
        while below.parent:
            assert below.model not in seen
            seen.add(below.model)
            below = by_model[below.parent]
            assert below.row < row.row <= below.last
    for row in rows:
        inside = [other for other in rows if row.row < other.row <= row.last]
        assert all(other.depth > row.depth for other in inside)


def test_the_truth_is_a_forest_of_its_own(forests):
    found = forests.recovered(2, 3, 1, wrong=["r0c1g0"], mixture=True)
    true = true_forest(found, "the truth")
    assert set(true.statuses.values()) == {Status.RIGHT}
    assert len(true.forest.trees) == 2
    assert true.forest.parents["soup"].keys() == {"r0c0", "r0c1"}
    assert true_forest(forests.recovered(known=False), "the truth") is None


def test_every_method_is_held_against_the_same_truth(forests):
    found = evaluated_forests(forests.recovered(2, 3, 1, wrong=["r0c1g0"]))
    assert list(found) == ["descent", "mother", "nearest_root"]
    assert found["descent"].statuses["r0c1g0"] == Status.WRONG
    assert found["mother"].statuses["r0c1g0"] == Status.WRONG
    assert found["mother"].statuses["r0c1"] == Status.RIGHT


def test_a_model_is_told_by_what_tells_it_from_others_of_its_stage():
    info = {
        "a": {"stage": "pretrain", "factors": {"lr": 0.1, "seed": 1}},
        "b": {"stage": "finetune", "factors": {"lr": 0.1, "seed": 1}, "epoch": 3},
        "c": {"stage": "finetune", "factors": {"lr": 0.1, "seed": 2}},
        "d": {"stage": "finetune", "factors": "seed 3, of old"},
        "e": {"file": "e.pt"},
    }
    assert descriptions(info) == {
        "a": "pretrain",
        "b": "finetune  seed=1",
        "c": "finetune  seed=2",
        "d": "finetune  seed 3, of old",
        "e": "",
    }


def test_names_are_short_and_printable():
    assert short_name("0123456789ab") == "01234567"
    assert short_name("0123456789ab@12") == "01234567@12"
    assert short_name("model.safetensors") == "model.safetensors"
    long = short_name("runs/" + "x" * 60 + "/last.safetensors")
    assert len(long) <= 34
    assert long.startswith("runs/")
    assert long.endswith("last.safetensors")
    assert "\x1b" not in short_name("a\x1b[31m")
