"""`vitarium verify`, `pack`, `unpack`: what they print, and their exit status."""

import json

import pytest
from typer.testing import CliRunner

from vitarium import Zoo
from vitarium.cli import app

run = CliRunner().invoke


@pytest.fixture
def damaged(kept_zoo):
    """A zoo with one changed byte, and the file in which it is."""
    file = sorted(kept_zoo.path.glob("models/*/checkpoints/*"))[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return kept_zoo, file.relative_to(kept_zoo.path).as_posix()


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_a_whole_zoo_is_said_to_be_whole(kept_zoo, options):
    done = run(app, ["verify", str(kept_zoo.path), *options])
    assert done.exit_code == 0
    assert "is whole" in done.output


def test_faults_are_listed_and_the_exit_status_is_1(damaged):
    zoo, file = damaged
    done = run(app, ["verify", str(zoo.path)])
    assert done.exit_code == 1
    assert file in done.output
    done = run(app, ["verify", str(zoo.path), "--json"])
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert file in [fault["file"] for fault in found]
    assert all(fault.keys() == {"file", "fault", "lost"} for fault in found)


def test_json_of_a_whole_zoo_is_an_empty_list(kept_zoo):
    done = run(app, ["verify", str(kept_zoo.path), "--json"])
    assert (done.exit_code, json.loads(done.output)) == (0, [])


def test_a_zoo_whose_mark_is_damaged_is_verified_all_the_same(kept_zoo):
    (kept_zoo.path / "zoo.json").write_text("{}")
    done = run(app, ["verify", str(kept_zoo.path)])
    assert done.exit_code == 1
    assert "zoo.json" in done.output


@pytest.mark.parametrize("command", ["verify", "pack", "unpack"])
def test_a_folder_that_is_no_zoo_is_refused(command, tmp_path):
    done = run(app, [command, str(tmp_path)])
    assert done.exit_code != 0
    assert "is not a zoo" in str(done.exception)


def test_a_zoo_is_unpacked_and_packed(kept_zoo):
    count = len(list(kept_zoo.path.glob("models/*/checkpoints/*")))
    for command, suffix in (("unpack", ".safetensors"), ("pack", ".packed")):
        done = run(app, [command, str(kept_zoo.path)])
        assert done.exit_code == 0
        assert f"{count} of {count} checkpoints {command}ed" in done.output
        files = list(kept_zoo.path.glob("models/*/checkpoints/*"))
        assert {file.suffix for file in files} == {suffix}
        assert f"0 of {count}" in run(app, [command, str(kept_zoo.path)]).output


def test_a_damaged_zoo_is_not_packed(damaged):
    zoo, _ = damaged
    done = run(app, ["unpack", str(zoo.path)])
    assert done.exit_code == 1
    assert "corrupt file" in str(done.exception)
    assert len(Zoo.open(zoo.path).ids()) > 0
