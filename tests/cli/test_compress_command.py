"""`vitarium compress` at the command line."""

import json

import pytest

from vitarium.cli._options import setting_value
from vitarium.core import registry
from vitarium.core.config import Config, InvalidConfig
from vitarium.operators.base import operator
from vitarium.operators.compression.minivit import Minivit

SHARE = Minivit.model_fields["share"].annotation


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2", 2),
        ("all", "all"),
        ("4,4,2,2", (4, 4, 2, 2)),
        ("[2,[4,2]]", (2, (4, 2))),
        ("2,all,[4,2]", (2, "all", (4, 2))),
        ("[2,all]", (2, "all")),
        ('[2,"all"]', (2, "all")),
    ],
)
def test_a_pattern_is_a_number_all_or_a_list(text, found):
    assert Minivit.read({"share": setting_value(text, SHARE)}).share == found


@pytest.mark.parametrize("text", ["two", "true", "", "2.5", "{}", "allen", "2,all:", "[2"])
def test_other_patterns_are_refused(text):
    with pytest.raises(InvalidConfig, match="share"):
        Minivit.read({"share": setting_value(text, SHARE)})


def test_settings_of_a_registered_method_are_options(vitarium, monkeypatch):
    """A method from outside, of one function, is known to the command by its settings."""
    known = {kind: registry.plugins(kind) for kind in registry.KINDS}
    monkeypatch.setattr(registry, "_plugins", known)

    class Halved(Config):
        kept_rank: int = 4
        """Rank of what is left."""
        keep_bias: bool = True
        init: str = "first"

    operator("halved", title="Halving", config=Halved, models=(1, 1), compression="trained")(print)
    status, out, _ = vitarium("compress", "--help")
    assert status == 0
    assert all(
        text in out for text in ("Halving", "--kept-rank", "Rank of what is left", "MiniViT")
    )
    assert all(text in out for text in ("--keep-bias", "--no-keep-bias", "--share"))
    status, out, _ = vitarium("compress", "nowhere", "--method", "list")
    assert "halved" in out


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
    assert row["student"][:8] in out
    assert f"{row['parameters_before']:,} -> {row['parameters_after']:,}" in out


def test_compress_takes_a_selection(vitarium, grown_zoo):
    status, out, err = vitarium(
        "compress", grown_zoo.path, "--where", "stage = 'finetune'", "--share", "all",
        "--epochs", 1, "--workers", 0, "--objective", "supervised", "--stage", "small", "--json",
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
    assert "uniform_soup" not in out


def test_compress_says_what_is_wrong(vitarium, grown_zoo):
    parent = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    for arguments, message in [
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
        assert message in err
