"""Files are whole or not there, and damage is found."""

import os
from pathlib import Path

import pytest

from vitarium.core import files
from vitarium.core.errors import CorruptFile, DiskFull, UnusablePath


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


def test_what_need_not_be_durable_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    def refuse(handle):
        raise AssertionError("it waits")

    monkeypatch.setattr(os, "fsync", refuse)
    files.write(tmp_path / "x", b"1", durable=False)
    files.write(tmp_path / "x", b"2", durable=False)
    assert (tmp_path / "x").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_broken_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: line 2 is not valid JSON"):
        files.read_lines(path, sealed=False)
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: not valid JSON"):
        files.read_json(path)


def test_a_failed_write_leaves_no_folder_either(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        files.write(tmp_path / "new" / "folder" / "a.json", b"{}")
    assert os.listdir(tmp_path) == []


def test_names_may_be_as_long_as_a_disk_takes_them(tmp_path):
    path = tmp_path / ("n" * 255)
    files.write(path, b"content")
    assert files.read(path) == b"content"
    with pytest.raises(UnusablePath, match="too long"):
        files.write(tmp_path / ("n" * 256), b"content")


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "."):
        with pytest.raises(UnusablePath, match="it is a folder, not a file"):
            files.write(path, b"content")


def test_what_lies_in_a_folder_is_listed_in_order(tmp_path):
    for name in ("b", "a", ".c"):
        (tmp_path / name).touch()
    assert [path.name for path in files.listed(tmp_path)] == [".c", "a", "b"]
    assert files.listed(tmp_path / "missing") == []
    with pytest.raises(UnusablePath):
        files.listed(tmp_path / "a")


NO_UTF8 = os.fsdecode(b"\xff")


def test_names_that_are_no_utf8_come_back_from_json_escaped(tmp_path):
    value = {"name": NO_UTF8, "ü": 1}
    files.write_json(tmp_path / "a.json", value)
    files.write_sealed(tmp_path / "b.json", value)
    escaped = {"name": "\\xff", "ü": 1}
    assert files.read_json(tmp_path / "a.json") == files.read_sealed(tmp_path / "b.json") == escaped
    (tmp_path / "a.json").read_text("utf-8")


@pytest.mark.parametrize("name", ["plain ü", "st*r", "a[1]", "{a}", "w?y", NO_UTF8])
def test_libraries_find_a_file_of_any_name(tmp_path, name):
    folder = tmp_path / name
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    (folder / "file").write_bytes(b"content")
    for path, below in ((folder, "file"), (folder / "file", "")):
        with files.plain_path(path) as plain:
            str(plain).encode()
            assert (plain / below).read_bytes() == b"content"
            if Path("/proc/self/fd").exists():
                assert not set("*?[{") & set(str(plain))
