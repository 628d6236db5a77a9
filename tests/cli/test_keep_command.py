"""`vitarium verify`, `pack`, `unpack`: what they print, and their exit status."""

import json

import pytest

from vitarium import Zoo


@pytest.fixture
def damaged(kept_zoo):
    """A zoo with one changed byte, and the file in which it is."""
    file = sorted(kept_zoo.path.glob("models/*/checkpoints/*"))[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return kept_zoo, file.relative_to(kept_zoo.path).as_posix()


@pytest.mark.parametrize("options", [[], ["--deep"]])
def test_an_intact_zoo_is_said_to_be_intact(kept_zoo, vitarium, options):
    status, out, _ = vitarium("verify", kept_zoo.path, *options)
    assert status == 0
    assert "is intact" in out


def test_faults_are_listed_and_the_exit_status_is_1(damaged, vitarium):
    zoo, file = damaged
    status, out, _ = vitarium("verify", zoo.path)
    assert status == 1
    assert file in out
    status, out, _ = vitarium("verify", zoo.path, "--json")
    found = json.loads(out)
    assert status == 1
    assert file in [fault["file"] for fault in found]
    assert all(fault.keys() == {"file", "fault", "lost"} for fault in found)


def test_json_of_a_whole_zoo_is_an_empty_list(kept_zoo, vitarium):
    status, out, _ = vitarium("verify", kept_zoo.path, "--json")
    assert (status, json.loads(out)) == (0, [])


def test_a_zoo_whose_mark_is_damaged_is_verified_all_the_same(kept_zoo, vitarium):
    (kept_zoo.path / "zoo.json").write_text("{}")
    status, out, _ = vitarium("verify", kept_zoo.path)
    assert status == 1
    assert "zoo.json" in out


@pytest.mark.parametrize("command", ["verify", "pack", "unpack"])
def test_a_folder_that_is_no_zoo_is_refused(command, vitarium, tmp_path):
    status, _, err = vitarium(command, tmp_path)
    assert status == 2
    assert "is not a zoo" in err


def test_a_zoo_is_unpacked_and_packed(kept_zoo, vitarium):
    count = len(list(kept_zoo.path.glob("models/*/checkpoints/*")))
    for command, suffix in (("unpack", ".safetensors"), ("pack", ".packed")):
        status, out, _ = vitarium(command, kept_zoo.path)
        assert status == 0
        assert f"{count} of {count} checkpoints {command}ed" in out
        files = list(kept_zoo.path.glob("models/*/checkpoints/*"))
        assert {file.suffix for file in files} == {suffix}
        again = vitarium(command, kept_zoo.path)[1]
        assert f"{count} checkpoints, all {command}ed already" in again


def test_a_damaged_zoo_is_not_unpacked(damaged, vitarium):
    zoo, _ = damaged
    status, _, err = vitarium("unpack", zoo.path)
    assert status == 1
    assert "corrupt file" in err
    assert len(Zoo.open(zoo.path).ids()) > 0
