"""Files are whole or not there, and damage is found."""

import os

import pytest

from vitarium.errors import CorruptFile, DiskFull
from vitarium.store import files


@pytest.fixture(params=["lines", "object"])
def sealed(request, tmp_path):
    """A file with a checksum in itself, and how it is read."""
    path = tmp_path / "file"
    value = {"a": 1, "b": {"ü": [1.5, None]}}
    if request.param == "lines":
        files.write_lines(path, [value, {"c": "}"}])
        return path, lambda: files.read_lines(path, sealed=True), [value, {"c": "}"}]
    files.write_sealed(path, value)
    return path, lambda: files.read_sealed(path), value


def test_what_was_sealed_comes_back(sealed):
    path, read, value = sealed
    assert read() == value
    assert path.read_text().endswith('"}\n')


def test_what_utf_8_cannot_say_is_read_as_what_it_can(tmp_path):
    path, value = tmp_path / "file", {"half \ud83d": ["byte \udcff", "\x9b\u202e", "👩"]}
    read = {r"half \ud83d": [r"byte \xff", "\x9b\u202e", "👩"]}
    files.write_sealed(path, value)
    assert files.read_sealed(path) == read
    assert not {"\x9b", "\u202e"} & set(path.read_text(encoding="utf-8"))
    files.write_json(path, value)
    assert files.read_json(path) == read
    files.write_lines(path, [value])
    assert files.read_lines(path, sealed=True) == [read]
    path.write_bytes(b'["\xed\xa0\xbd"]')
    assert files.read_json(path) == [r"\ud83d"]


def test_every_changed_byte_is_found(sealed):
    path, read, _ = sealed
    whole = path.read_bytes()
    for position in range(len(whole)):
        for change in (1, 4, 32, 255):
            damaged = bytearray(whole)
            damaged[position] ^= change
            path.write_bytes(damaged)
            with pytest.raises(CorruptFile):
                read()


def test_every_truncation_is_found(sealed):
    path, read, _ = sealed
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile):
            read()


def test_files_of_format_1_have_no_seals(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert files.read_lines(path, sealed=False) == [{"a": 1}, {"a": 2}]
    with pytest.raises(CorruptFile, match="its end is cut off"):
        files.read_lines(path, sealed=True)
    path.write_text('{"a": 1}')
    assert files.read_sealed(path, format_1=lambda value: value["a"] == 1) == {"a": 1}
    for other in ({}, {"format_1": lambda value: value["a"] == 2}):
        with pytest.raises(CorruptFile, match="it does not end in its checksum"):
            files.read_sealed(path, **other)


def test_a_missing_file_has_no_lines(tmp_path):
    assert files.read_lines(tmp_path / "gone.jsonl", sealed=True) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"no space left for .*a\.json"):
        files.write_json(path, {"new": 1})
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_broken_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: line 2 is not valid JSON"):
        files.read_lines(path, sealed=False)
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: not valid JSON"):
        files.read_json(path)
