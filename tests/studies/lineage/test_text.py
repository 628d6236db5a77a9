"""A recovered forest on a terminal."""

from dataclasses import replace

from vitarium.studies.lineage.evaluated import EvaluatedForest, evaluated_forests
from vitarium.studies.lineage.sentences import forest_lines


def test_children_hang_below_their_parents(forests):
    truth = forests.truth_of(2, 2, 1)
    forest = forests.forest_of(truth, sure={"r0c0": 0.5, "r1": 0.75})
    assert forest_lines(EvaluatedForest(forest, truth, {"r0": "pretrain"})) == [
        "r0  root 99 %                pretrain",
        "├─ r0c0  cannot tell (50 %)",
        "│  └─ r0c0g0  97 %",
        "└─ r0c1  97 %",
        "   └─ r0c1g0  97 %",
        "r1  cannot tell (root 75 %)",
        "├─ r1c0  97 %",
        "│  └─ r1c0g0  97 %",
        "└─ r1c1  97 %",
        "   └─ r1c1g0  97 %",
    ]


def test_candidates_stand_beside_what_cannot_be_told(forests):
    truth = forests.truth_of(1, 2, 0)
    candidates = {"r0c0": {"r0": 0.5, "r0c1": 0.3, "": 0.16, "x": 0.04}, "r0c1": {"r0": 0.97}}
    forest = replace(forests.forest_of(truth, sure={"r0c0": 0.5}), candidates=candidates)
    assert forest.undecided == ["r0c0"]
    lines = forest_lines(EvaluatedForest(forest, truth, {}))
    assert lines[1].split("  ")[-1] == "(or of r0c1 30 %, a root 16 %)"
    assert not any("or of" in line for line in [lines[0], *lines[2:]])


def test_an_undecided_root_lists_the_parents_it_may_have(forests):
    truth = forests.truth_of(1, 1, 0)
    candidates = {"r0": {"": 0.6, "r0c0": 0.4}}
    forest = replace(forests.forest_of(truth, sure={"r0": 0.6}), candidates=candidates)
    first = forest_lines(EvaluatedForest(forest, truth, {}))[0]
    assert first == "r0  cannot tell (root 60 %)  (or of r0c0 40 %)"


def test_what_is_wrong_and_further_parents_are_told(forests):
    found = forests.recovered(1, 3, 1, wrong=["r0c1g0"], mixture=True)
    told = "\n".join(forest_lines(evaluated_forests(found)["descent"]))
    assert told.count("(wrong: of r0c1)") == told.count("wrong") == 1
    assert told.count("(and of r0c1)") == 1
    flat = "\n".join(forest_lines(evaluated_forests(found)["mother"]))
    assert "(wrong: of r0c0, r0c1)" in flat


def test_a_root_that_has_no_parents_in_truth_is_told(forests):
    truth = {"a": (), "b": ()}
    forest = forests.forest_of({"a": (), "b": ("a",)})
    assert forest_lines(EvaluatedForest(forest, truth, {}))[1].endswith("(wrong: a root)")


def test_a_long_forest_is_cut(forests):
    found = evaluated_forests(forests.recovered(3, 4, 3))["descent"]
    told = forest_lines(found, max_models=20)
    assert len(told) == 21
    assert told[-1] == "… 31 more models; see the page"
    assert told[:20] == [line for line in forest_lines(found) if line in told[:20]]
    assert len(forest_lines(found, max_models=51)) == 51


def test_a_chain_of_a_thousand_is_no_trouble(forests):
    names = [f"m{number:04d}" for number in range(1000)]
    forest = forests.forest_of(
        {name: tuple(names[:number][-1:]) for number, name in enumerate(names)}
    )
    told = forest_lines(EvaluatedForest(forest, None, {}), max_models=1000)
    assert told[-1].endswith("└─ m0999  97 %")
