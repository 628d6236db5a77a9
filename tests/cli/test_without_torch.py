"""What only reads a zoo does without torch, which takes seconds to import."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vitarium.cli.measuring import _is_final
from vitarium.core import cache

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


def test_what_is_installed_is_listed_without_torch_once_it_is_known(
    monkeypatch, tmp_path, vitarium
):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    listing = [
        ["plugins"],
        ["blueprint", "list"],
        ["study", "--help"],
        ["compress", "--help"],
        ["blueprint", "check", "demo"],
    ]
    with monkeypatch.context() as patch:
        patch.setattr(cache, "sys", SimpleNamespace(modules={}))  # as if torch were not yet there
        listed = "".join(vitarium(*command)[1] for command in listing)
    more = [
        ["plugins", "studies", "--json"],
        ["plugins", "measure", "cka"],
        ["merge", "DIR", "--method", "list"],
        ["study", "soups", "--help"],
        ["compress", "DIR", "--method", "list"],
        ["blueprint", "check", "demo", "--json"],
    ]
    again = assert_without_torch([*listing, *more])
    assert "--share" in listed
    assert "valid: 27 models" in listed
    # a program is called otherwise where pytest runs it
    lines = [
        [line.strip() for line in text.splitlines() if "Usage:" not in line]
        for text in (listed, again)
    ]
    assert lines[1][: len(lines[0])] == lines[0]


def test_a_check_is_remembered_for_that_text_that_zoo_and_no_files_beside(
    tiny, grown_zoo, monkeypatch, tmp_path, write_blueprint
):
    from vitarium.cli import _blueprint

    checks = []
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "sys", SimpleNamespace(modules={}))
    monkeypatch.setattr(_blueprint, "_check", lambda *_: checks.append(1) or {"final": is_final})

    def number_of_checks(blueprint, zoo=None):
        checks.clear()
        for _ in range(2):
            _blueprint.checked_blueprint(str(write_blueprint(blueprint)), zoo, None)
        return len(checks)

    is_final = True
    assert number_of_checks(tiny) == 1
    assert number_of_checks(tiny) == 0
    assert number_of_checks({**tiny, "title": "another text"}) == 1
    assert number_of_checks(tiny, grown_zoo.path) == 1
    shutil.rmtree(grown_zoo.path / "models" / grown_zoo.ids()[0])
    assert number_of_checks(tiny, grown_zoo.path) == 1
    is_final = False
    assert number_of_checks({**tiny, "title": "with files"}) == 2


def test_a_check_that_reads_files_is_known_as_such(tiny, grown_zoo):
    from vitarium import Blueprint, plan
    from vitarium.cli._blueprint import _reads_files
    from vitarium.engine.parents import parents_in

    def reads_files(stages):
        return _reads_files(plan(Blueprint.read(tiny | {"stages": stages}), parents_in(grown_zoo)))

    stage = tiny["stages"]["pretrain"]
    assert not reads_files({"pretrain": stage})
    assert reads_files(
        {"pretrain": {**stage, "data": {"name": "image_folder", "folder": "photos"}}}
    )
    start = {"models": [grown_zoo.ids()[0]]}
    assert reads_files({"more": {**stage, "start": start}})


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
    return subprocess.run(program, capture_output=True, text=True, check=True, env=dict(os.environ))


def assert_without_torch(commands):
    program = [sys.executable, "-c", _RUN, json.dumps(commands)]
    # without an `env`, it would have the width that readline, which pytest loads, has set
    ended = subprocess.run(
        program, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
