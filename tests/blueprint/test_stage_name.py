"""What a stage may be called by those who write blueprints, merge and compress."""

import pytest

from vitarium import Blueprint, compress, merge
from vitarium.blueprint import check_stage_name
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput

GOOD = [
    "pretrain",
    "füße",
    "事前学習",
    "stage 1/2",
    "../../x",
    "[bold]",
    "می‌خواهم",
    "=x",
    "x" * 100,
]
BAD = {
    "": "is no name of a stage",
    " \u3000": "is no name of a stage",
    "two\nlines": r"'two\\nlines' contains .* U\+000A",
    "nul\0": r"U\+0000",
    "\x1b[31m": r"U\+001B",
    "\x9b31m": r"U\+009B",
    "right\u202eleft": r"U\+202E",
    "half \ud83d": r"U\+D83D",
    "x" * 10_000: "10,000 characters; 100 are allowed",
}


@pytest.mark.parametrize("name", GOOD)
def test_whatever_is_seen_may_name_a_stage(name, tiny):
    assert check_stage_name(name) == name
    stage = tiny["stages"]["pretrain"]
    assert list(Blueprint.read({"name": "x", "stages": {name: stage}}).stages) == [name]


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_seen_or_never_ends_may_not(name, tiny):
    stages = {**tiny["stages"], name: tiny["stages"]["pretrain"]}
    with pytest.raises(InvalidConfig, match=BAD[name]) as error:
        Blueprint.read({"name": "x", "stages": stages})
    assert len(str(error.value)) < 400
    for combine, method in ((merge, "uniform_soup"), (compress, "minivit")):
        with pytest.raises(InvalidInput, match=BAD[name]):
            combine(None, method, models=[], stage=name)


def test_the_line_of_the_name_is_told(write_blueprint):
    path = write_blueprint('name: x\nstages:\n  a: {}\n  "b\\e": {}\n')
    with pytest.raises(InvalidConfig, match=r"U\+001B.*\(line 4\)"):
        Blueprint.load(path)
