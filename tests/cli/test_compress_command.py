"""`vitarium compress` at the command line."""

import json

import pytest

from vitarium.cli.compressing import sharing
from vitarium.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2", 2),
        ("all", "all"),
        ("4,4,2,2", [4, 4, 2, 2]),
        ("[2,[4,2]]", [2, [4, 2]]),
        ("2,all,[4,2]", [2, "all", [4, 2]]),
        ('[2,"all"]', [2, "all"]),
    ],
)
def test_a_pattern_is_a_number_all_or_a_list(text, found):
    assert sharing(text) == found


@pytest.mark.parametrize("text", ["two", "true", "", "2.5", "{}", "allen", '"two"'])
def test_other_patterns_are_refused(text):
    with pytest.raises(InvalidInput, match="--share"):
        sharing(text)


def test_compress_prints_the_student_beside_its_original(vitarium, grown_zoo):
    parent = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    asked = ("compress", grown_zoo.path, parent, "--share", "all", "--epochs", 1, "--workers", 0)
    status, out, err = vitarium(*asked, "--json")
    assert status == 0, err
    (row,) = json.loads(out)
    assert row["model"] == parent
    assert grown_zoo.spec(row["student"]).parent == parent
    status, out, err = vitarium(*asked)
    assert status == 0, err
    assert row["student"] in out
    assert f"{row['parameters_before']:,} -> {row['parameters_after']:,}" in out


def test_compress_takes_a_selection(vitarium, grown_zoo):
    status, out, err = vitarium(
        "compress", grown_zoo.path, "--where", "stage = 'finetune'", "--share", "all",
        "--epochs", 1, "--workers", 0, "--objective", "supervised", "--name", "small", "--json",
    )  # fmt: skip
    assert status == 0, err
    students = {row["student"] for row in json.loads(out)}
    finetuned = [id for id in grown_zoo.ids() if grown_zoo.spec(id).stage == "finetune"]
    assert {grown_zoo.spec(id).parent for id in students} == set(finetuned)
    assert {grown_zoo.spec(id).stage for id in students} == {"small"}


def test_compress_lists_its_methods(vitarium, grown_zoo):
    status, out, _ = vitarium("compress", grown_zoo.path, "--method", "list")
    assert status == 0
    assert "minivit" in out
    assert "uniform-soup" not in out


def test_compress_says_what_is_wrong(vitarium, grown_zoo):
    parent = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    for arguments, said in [
        ((), "which models"),
        (("--where", "stage = 'none'"), "no model fulfills"),
        ((parent, "--share", "5"), "does not divide 1 blocks"),
        ((parent, "--init", "best"), "init"),
        ((parent, "--train", "optimizer.lr"), "--train optimizer.lr"),
        ((parent, "--train", "optimizer.rate=1"), "rate"),
        ((parent, "--objective", "osmosis"), "osmosis"),
        ((parent, "--set", "shares=2"), "shares"),
    ]:
        if "--share" not in arguments:
            arguments = (*arguments, "--share", "all")
        status, _, err = vitarium("compress", grown_zoo.path, *arguments)
        assert status in (1, 2)
        assert said in err
