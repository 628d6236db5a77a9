"""What only reads a zoo does without torch, which takes seconds to import."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vitarium.cli._value_memory import is_final
from vitarium.core import cache
from vitarium.core.errors import DataNotFound
from vitarium.measures._runner.measure import measure

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


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Names of the measures, of every time that something was not remembered; commands in this
    process remember as one without torch does."""
    measured = []

    def recorded(zoo, measures, **options):
        measured.append(list(measures))
        return measure(zoo, measures, **options)

    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "sys", SimpleNamespace(modules={}))
    monkeypatch.setattr("vitarium.measures._runner.measure.measure", recorded)
    return measured


def test_known_values_and_refusals_are_given_without_torch(grown_zoo, runs, vitarium):
    zoo, (first, *_) = str(grown_zoo.path), grown_zoo.ids()
    command = ["measure", zoo, "accuracy", "distance_from_parent", "weight_norm"]
    _, computed, refusals = vitarium(*command, "--json")
    commands = [
        [*command, "--json"],
        ["measure", zoo, "weight-norm", "distance-from-parent", "--json"],
        ["measure", zoo, "accuracy", first[:6], "--json"],
        ["measure", zoo, *command[2:], "--where", "stage = 'finetune'", "--json"],
    ]
    recalled = [vitarium(*command) for command in commands]
    assert recalled[0] == (0, computed, refusals)
    assert "without a value: 2" in refusals
    assert len(runs) == 1
    assert assert_without_torch(commands) == "".join(output for _, output, _ in recalled)

    recomputed = [vitarium(*command, "--overwrite") for command in commands[1:]]
    assert len(runs) == len(commands)
    for (_, output, errors), (_, again, errors_again) in zip(recalled[1:], recomputed, strict=True):
        rows, rows_again = json.loads(output), json.loads(again)
        assert sorted(map(str, rows)) == sorted(map(str, rows_again))
        assert errors.splitlines() == errors_again.splitlines()[-len(errors.splitlines()) :]


def test_what_is_known_stays_known_when_more_is_measured(grown_zoo, runs, vitarium):
    zoo, ids = grown_zoo.path, grown_zoo.ids()
    for model in ids:
        vitarium("measure", zoo, "weight_norm", model)
    vitarium("measure", zoo, "sparsity")
    assert len(runs) == len(ids) + 1
    vitarium("measure", zoo, "sparsity", "weight_norm")
    assert len(runs) == len(ids) + 1
    for more in (["--epochs", "all"], ["--set", "order=1"], [f"{ids[0]}@1"]):
        before = len(runs)
        outputs = [vitarium("measure", zoo, "weight_norm", *more, "--json")[:2] for _ in range(2)]
        assert len(runs) == before + 1, more
        assert outputs[0] == outputs[1]
    vitarium("measure", zoo, "weight_norm")
    assert len(runs) == before + 1


def test_pairs_are_known_for_the_same_models_alone(grown_zoo, runs, vitarium):
    zoo, ids = grown_zoo.path, grown_zoo.ids()
    command = ["measure", zoo, "agreement", "--pairs", "all", "--json"]
    status, *output = vitarium(*command)
    assert [status, *output] == [0, *vitarium(*command)[1:]]
    assert len(runs) == 1
    _, fewer, _ = vitarium(*command, *ids[:2])
    assert len(runs) == 2
    assert {(row["model"], row["other"]) for row in json.loads(fewer)} == {tuple(sorted(ids[:2]))}


def test_what_is_refused_for_want_of_data_is_looked_up_each_time(
    grown_zoo, runs, vitarium, monkeypatch
):
    def lacks(*_):
        raise DataNotFound("not here")

    with monkeypatch.context() as patch:
        patch.setattr("vitarium.evaluation.loader.ModelLoader.examples", lacks)
        _, lacking, _ = vitarium("measure", grown_zoo.path, "accuracy", "weight_norm", "--json")
    assert "not here" in lacking
    _, complete, _ = vitarium("measure", grown_zoo.path, "accuracy", "--json")
    assert not any(row["refused"] for row in json.loads(complete))
    vitarium("measure", grown_zoo.path, "weight_norm", "--json")
    assert runs == [["accuracy", "weight_norm"], ["accuracy"]]


def test_values_are_looked_up_again_where_the_zoo_has_changed(grown_zoo, runs, vitarium):
    command = ["measure", grown_zoo.path, "accuracy", "--json"]
    before = json.loads(vitarium(*command)[1])
    first = before[0]["model"]
    shutil.rmtree(grown_zoo.path / "models" / first)
    after = json.loads(vitarium(*command)[1])
    assert [row for row in before if row["model"] != first] == after
    assert len(runs) == 2
    records = next((grown_zoo.path / "records").glob("*.parquet"))
    records.unlink()
    vitarium(*command)
    assert len(runs) == 3


def test_a_model_that_comes_while_others_are_measured_is_no_part_of_what_is_remembered():
    before = [{"a": "1"}, ["old.parquet"]]
    own = {"final": True, "written": ["new.parquet"]}
    assert is_final(own, before, [{"a": "1"}, ["old.parquet", "new.parquet"]])
    assert not is_final(own, before, [{"a": "1", "b": "2"}, ["old.parquet", "new.parquet"]])
    of_others = ["old.parquet", "new.parquet", "of-another-process.parquet"]
    assert not is_final(own, before, [{"a": "1"}, of_others])
    assert not is_final(
        {**own, "final": False}, before, [{"a": "1"}, [*before[1], *own["written"]]]
    )


def assert_without_torch(commands):
    program = [sys.executable, "-c", _RUN, json.dumps(commands)]
    # without an `env`, it would have the width that readline, which pytest loads, has set
    ended = subprocess.run(
        program, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
