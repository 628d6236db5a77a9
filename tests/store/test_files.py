"""Files are whole or not there, and damage is found."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitarium.errors import CorruptFile
from vitarium.store import files

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(1, dtype=torch.bfloat16)}


def test_tensors_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "sub" / "weights.safetensors"
    digest = files.write_tensors(path, TENSORS, {"epoch": "1"})
    found = files.read_tensors(path, digest)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    assert all(found[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_equal_tensors_are_equal_files(tmp_path):
    notes = {letter: letter for letter in "abcdefgh"}
    digests = {files.write_tensors(tmp_path / "x", TENSORS, notes) for _ in range(20)}
    assert len(digests) == 1


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "weights.safetensors"
    digest = files.write_tensors(path, TENSORS, {})
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=r"weights\.safetensors"):
            files.read_tensors(path, digest)


@given(cut=st.integers(1, 100))
def test_a_truncated_file_is_found(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "weights.safetensors"
    digest = files.write_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CorruptFile):
        files.read_tensors(path, digest)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorruptFile, match=r"gone\.safetensors: the file is missing"):
        files.read_tensors(tmp_path / "gone.safetensors", "0")


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"new": 1})
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_broken_json_is_named_with_its_line(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"a": 1}\n{"a"')
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: line 2 is not valid JSON"):
        files.read_lines(path)
    with pytest.raises(CorruptFile, match=r"epochs\.jsonl: not valid JSON"):
        files.read_json(path)
