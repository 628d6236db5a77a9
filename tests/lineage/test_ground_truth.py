"""The truth of a zoo, or of a table, within what was read of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium import merge
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.lineage.ground_truth import LAST, restrict_truth, true_parents, zoo_origins


def read(*names):
    """`a` is a model after its last epoch, `a@3` after epoch 3."""
    checkpoints = {}
    for name in names:
        model, _, epoch = name.partition("@")
        checkpoints[name] = CheckpointRef(model, int(epoch or 0))
    return checkpoints


def origins(**parents_of):
    """`b=["a@3"]`: b started from a after epoch 3."""
    split = {m: [text.partition("@") for text in parents] for m, parents in parents_of.items()}
    table = {
        m: [CheckpointRef(p, int(e) if e else LAST) for p, _, e in f] for m, f in split.items()
    }
    return lambda model: table.get(model, ())


def test_parents_are_those_that_a_model_started_from_or_was_made_of():
    truth = true_parents(
        read("a", "b", "c", "soup"), origins(b=["a@3"], c=["b"], soup=["c@1", "a@2"])
    )
    assert truth == {"a": (), "b": ("a",), "c": ("b",), "soup": ("c", "a")}


def test_the_nearest_ancestor_stands_for_a_parent_that_was_not_read():
    origins_of = origins(b=["a"], c=["b"], d=["c"], soup=["d", "x"], x=["a"], lone=["gone"])
    assert true_parents(read("d", "a"), origins_of) == {"d": ("a",), "a": ()}
    assert true_parents(read("soup", "a", "c"), origins_of)["soup"] == ("c", "a")
    assert true_parents(read("soup", "a"), origins_of)["soup"] == ("a",)
    assert true_parents(read("lone", "d"), origins_of) == {"lone": (), "d": ()}


def test_epochs_follow_each_other_and_the_first_follows_what_the_model_started_from():
    origins_of = origins(b=["a@3"], c=["b@2"])
    truth = true_parents(read("a@0", "a@3", "a@5", "b@0", "b@1", "b@2", "c@0"), origins_of)
    assert truth == {
        "a@0": (),
        "a@3": ("a@0",),
        "a@5": ("a@3",),
        "b@0": ("a@3",),
        "b@1": ("b@0",),
        "b@2": ("b@1",),
        "c@0": ("b@2",),
    }


def test_the_epoch_that_was_read_last_before_stands_for_one_that_was_not():
    origins_of = origins(b=["a@3"])
    assert true_parents(read("a@0", "a@2", "a@5", "b@0"), origins_of)["b@0"] == ("a@2",)
    # later epochs of a are no ancestors of b
    assert true_parents(read("a@4", "a@5", "b@0"), origins_of)["b@0"] == ()
    # one epoch stands for the model
    assert true_parents(read("a@5", "b@0"), origins_of)["b@0"] == ("a@5",)


def test_a_soup_of_epochs_of_one_model_has_each_of_them_or_the_model_as_parents():
    origins_of = origins(mean=["a@1", "a@2", "a@3"])
    assert true_parents(read("a@1", "a@2", "a@3", "mean@0"), origins_of)["mean@0"] == (
        *("a@1", "a@2", "a@3"),
    )
    assert true_parents(read("a", "mean"), origins_of)["mean"] == ("a",)


def test_models_that_start_from_each_other_end_nowhere():
    assert true_parents(read("c"), origins(c=["a"], a=["b"], b=["a"])) == {"c": ()}


def test_models_whose_nearest_ancestors_nobody_knows_are_not_in_the_truth():
    table = {"a": (), "b": [CheckpointRef("x", LAST)], "c": [CheckpointRef("b", LAST)]}
    assert true_parents(read("a", "b", "c", "x"), table.get) == {"a": (), "b": ("x",), "c": ("b",)}
    # x may descend from a: of b it is known only that x is its parent, and x was not read
    assert true_parents(read("a", "b", "c"), table.get) == {"a": (), "c": ("b",)}
    assert true_parents(read("x@0", "x@1"), table.get) == {"x@1": ("x@0",)}
    assert restrict_truth({"a": (), "b": ("x",)}, ["a", "b", "x"]) == {"a": (), "b": ("x",)}
    assert restrict_truth({"a": (), "b": ("x",)}, ["a", "b"]) == {"a": ()}


def test_truth_within_some_models_skips_the_others():
    truth = {"a": (), "b": ("a",), "c": ("b",), "d": ("c", "a")}
    assert restrict_truth(truth, ["a", "c", "d"]) == {"a": (), "c": ("a",), "d": ("c", "a")}
    assert restrict_truth(truth, ["a", "d"]) == {"a": (), "d": ("a",)}
    assert restrict_truth(truth, list(truth)) == truth


@settings(deadline=None, max_examples=50)
@given(data=st.data(), size=st.integers(1, 9))
def test_a_parent_within_is_an_ancestor_with_nothing_that_was_read_between(data, size):
    truth = {
        str(n): tuple(
            map(str, data.draw(st.sets(st.integers(0, n - 1), max_size=3) if n else st.just(set())))
        )
        for n in range(size)
    }
    subset = {name for name in truth if data.draw(st.booleans())}

    def reached(model):
        """Models that were read, by paths through models that were not."""
        ancestors = set()
        for parent in truth[model]:
            ancestors |= {parent} if parent in subset else reached(parent)
        return ancestors

    restricted = restrict_truth(truth, subset)
    assert {m: set(parents) for m, parents in restricted.items()} == {m: reached(m) for m in subset}
    assert all(len(set(parents)) == len(parents) for parents in restricted.values())


@pytest.fixture
def family(grown_zoo):
    """A parent and its two children."""
    children = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    parent = grown_zoo.spec(children[0]).parent
    return parent, [id for id in children if grown_zoo.spec(id).parent == parent]


def test_a_zoo_knows_of_what_operators_made_its_models(grown_zoo, family):
    parent, (first, second) = family
    soup = merge(grown_zoo, "uniform_soup", models=[first, second]).id
    changed = merge(grown_zoo, "task_arithmetic", models=[first, second]).id
    moved = merge(grown_zoo, "weight_matching", models=[first, second]).id
    epochs = merge(grown_zoo, "epoch_average", models=[parent], last=2).id
    names = [parent, first, second, soup, changed, moved, epochs]
    truth = true_parents(read(*names), zoo_origins(grown_zoo))
    assert truth[parent] == ()
    assert truth[first] == truth[second] == truth[epochs] == (parent,)
    assert set(truth[soup]) == {first, second}
    assert set(truth[changed]) == {first, second, parent}
    assert truth[moved] == (second,)  # it was moved to match the first


def test_a_model_of_another_architecture_begins_a_line_of_weights(grown_zoo):
    parent = next(id for id in grown_zoo.ids() if grown_zoo.spec(id).parent)
    twin = merge(grown_zoo, "minivit", models=[parent], share="all", init="first").id
    names = {parent: CheckpointRef(parent, 1), twin: CheckpointRef(twin, 0)}
    assert true_parents(names, zoo_origins(grown_zoo))[twin] == ()
