"""Vectors are computed once, kept in few files, and computed again where these are damaged."""

import numpy as np
import pytest

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, DamagedCache, NotApplicable
from vitarium.encoders._runner import vectors
from vitarium.encoders._runner.vectors import Vector, VectorCache, checksum, compute

REFS = [CheckpointRef(f"{number:012x}", 1) for number in range(7)]


def name(ref):
    return checksum(ref)


class Recorded:
    """Gives a vector of another length for each third model, and says for which it was called."""

    def __init__(self, refused=()):
        self.refs, self.refused = [], refused

    def __call__(self, ref):
        self.refs.append(ref)
        if ref in self.refused:
            raise NotApplicable(f"{ref}: it has none")
        number = int(ref.model, 16)
        values = np.arange(number, number + 2 + number % 3, dtype=np.float32)
        return Vector(values, checksum("group", number % 2))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(vectors, "_SHARD", 3)


def test_what_was_computed_is_kept_and_a_zoo_that_grows_needs_only_what_is_new(tmp_path):
    vector = Recorded()
    first = compute(REFS[:5], VectorCache(tmp_path, "x"), name, vector)
    later = compute(REFS, VectorCache(tmp_path, "x"), name, vector)
    assert vector.refs == REFS
    assert len(list((tmp_path / "cache" / "vectors").iterdir())) == 3
    assert [*first.vectors] == REFS[:5]
    for ref in REFS:
        expected = Recorded()(ref)
        assert later.vectors[ref].group == expected.group
        assert later.vectors[ref].values.tolist() == expected.values.tolist()
    compute(REFS[:1], VectorCache(tmp_path, "y"), name, vector)
    assert vector.refs == [*REFS, REFS[0]]


def test_in_a_time_that_is_too_short_each_call_gets_further(tmp_path):
    vector, remaining = Recorded(refused=REFS[:2]), []
    cache = VectorCache(tmp_path, "x")
    for _ in range(5):
        result = compute(REFS, cache, name, vector, seconds=-1.0)
        remaining.append(result.remaining)
    assert remaining == [4, 3, 2, 1, 0]
    assert vector.refs == REFS  # who is refused is so once
    assert result.refused == dict.fromkeys(REFS[:2], "it has none")
    assert [*result.vectors] == REFS[2:]


def test_what_may_be_mended_is_tried_again(tmp_path):
    cache, calls = VectorCache(tmp_path, "x"), []

    def damaged(ref):
        calls.append(ref)
        raise CorruptFile(tmp_path / "weights", "damaged")

    for _ in range(2):
        result = compute(REFS[:1], cache, name, damaged)
        assert "damaged" in result.refused[REFS[0]]
    assert len(calls) == 2


def test_a_damaged_file_is_computed_again(tmp_path):
    compute(REFS, VectorCache(tmp_path, "x"), name, Recorded())
    for file in (tmp_path / "cache" / "vectors").iterdir():
        file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")
    vector = Recorded()
    with pytest.warns(DamagedCache):
        result = compute(REFS, VectorCache(tmp_path, "x"), name, vector)
    assert vector.refs == REFS
    assert result.vectors[REFS[6]].values.tolist() == [6, 7]
    again = Recorded()
    compute(REFS, VectorCache(tmp_path, "x"), name, again)
    assert again.refs == []


def test_nothing_is_written_where_nothing_is_to_be_kept(tmp_path):
    result = compute(REFS, VectorCache(tmp_path, "x"), name, Recorded(), store=False)
    assert len(result.vectors) == len(REFS)
    assert not (tmp_path / "cache").exists()
