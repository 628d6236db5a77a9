"""What only reads a zoo does without torch, which takes seconds to import."""

import json
import shutil
import subprocess
import sys

import pytest

from vitarium.cli.measuring import _is_final

_RUN = """
import json, sys
from vitarium import cli

for command in json.loads(sys.argv[1]):
    sys.argv = ["vitarium", *command]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
    heavy = {"torch", "timm", "vitarium.core.seeds"} & sys.modules.keys()
    assert not heavy, (command, heavy)
"""


@pytest.mark.parametrize("has_index", [False, True])
def test_commands_that_read_a_zoo_do_not_import_torch(kept_zoo, has_index):
    if has_index:
        kept_zoo.models()
    zoo, model = str(kept_zoo.path), kept_zoo.ids()[0]
    commands = [
        ["--version"],
        ["--help"],
        ["ls", zoo],
        ["ls", zoo, "--where", "stage = 'finetune'", "--sort", "-after", "--json"],
        ["show", zoo, model],
        ["show", zoo, model, "--json"],
        ["query", zoo],
        ["query", zoo, "SELECT * FROM epochs", "--format", "csv"],
        ["verify", zoo],
        ["blueprint", "show", "demo"],
    ]
    assert_without_torch(commands)


def test_what_is_installed_is_listed_without_torch_once_it_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    listed = ""
    for command in (["plugins"], ["blueprint", "list"]):
        first = [sys.executable, "-m", "vitarium", *command]
        listed += subprocess.run(first, capture_output=True, text=True, check=True).stdout
    commands = [
        ["plugins"],
        ["blueprint", "list"],
        ["plugins", "studies", "--json"],
        ["plugins", "measure", "cka"],
        ["merge", "DIR", "--method", "list"],
    ]
    again = assert_without_torch(commands)
    assert listed.split() == again.split()[: len(listed.split())]


def test_numbers_that_are_known_are_given_without_torch(grown_zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    command = ["measure", str(grown_zoo.path), "accuracy", "distance_from_parent"]
    measured = run(command)
    assert assert_without_torch([command]) == measured.stdout
    # what is said of those without a value stays, too
    again = run(command)
    lines = measured.stderr.splitlines()  # with some of progress, if it took long
    assert again.stderr.splitlines() == [line for line in lines if not line.startswith("measuring")]
    assert "without a value: 2" in again.stderr


def test_numbers_are_looked_up_again_where_the_zoo_has_changed(grown_zoo, monkeypatch, tmp_path):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    command = ["measure", str(grown_zoo.path), "accuracy", "--json"]
    before = json.loads(run(command).stdout)
    first = before[0]["model"]
    shutil.rmtree(grown_zoo.path / "models" / first)
    after = json.loads(run(command).stdout)
    assert [row for row in before if row["model"] != first] == after


def test_a_model_that_comes_while_others_are_measured_is_no_part_of_what_is_remembered():
    before = [{"a": "1"}, ["old.parquet"]]
    own = {"final": True, "written": ["new.parquet"]}
    assert _is_final(own, before, [{"a": "1"}, ["old.parquet", "new.parquet"]])
    assert not _is_final(own, before, [{"a": "1", "b": "2"}, ["old.parquet", "new.parquet"]])
    of_others = ["old.parquet", "new.parquet", "of-another-process.parquet"]
    assert not _is_final(own, before, [{"a": "1"}, of_others])
    assert not _is_final(
        {**own, "final": False}, before, [{"a": "1"}, [*before[1], *own["written"]]]
    )


def run(command):
    program = [sys.executable, "-m", "vitarium", *command]
    return subprocess.run(program, capture_output=True, text=True, check=True)


def assert_without_torch(commands):
    program = [sys.executable, "-c", _RUN, json.dumps(commands)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
