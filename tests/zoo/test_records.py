"""Measured numbers: kept once, found again, and never half-read."""

from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.zoo import records
from vitarium.zoo.records import Measured
from vitarium.zoo.verify import verify


@pytest.fixture
def zoo(written_zoo):
    return written_zoo


@pytest.fixture
def one(zoo):
    return Measured(
        model=zoo.ids()[0],
        epoch=2,
        other=None,
        other_epoch=None,
        measure="accuracy",
        settings="{}",
        part="",
        value=0.5,
        unit="fraction",
        data="digits",
        split="test",
        num_images=10,
        images="abc",
        trained_on=False,
        weights="def",
    )


def test_what_is_added_is_found(zoo, one):
    pair = replace(one, other=zoo.ids()[1], other_epoch=1, measure="agreement")
    records.add(zoo.path, [one, pair])
    records.add(zoo.path, [replace(one, part="top5", value=0.9)])
    found = records.find(zoo.path, "accuracy", "{}")
    assert sorted(found, key=lambda r: r.part) == [one, replace(one, part="top5", value=0.9)]
    assert records.find(zoo.path, "agreement", "{}") == [pair]
    assert records.find(zoo.path, "accuracy", '{"k": 5}') == []


def test_the_table_of_records_has_them(zoo, one):
    assert zoo.records().empty
    records.add(zoo.path, [one])
    table = zoo.records("accuracy")
    assert table["value"].tolist() == [0.5]
    assert table["model"].tolist() == [one.model]
    assert pd.isna(table["other"][0])
    assert zoo.query("SELECT count(*) n FROM records WHERE split = 'test'")["n"][0] == 1


def test_of_two_numbers_for_the_same_the_later_counts(zoo, one):
    records.add(zoo.path, [one])
    records.add(zoo.path, [replace(one, value=0.75, trained_on=True)])
    assert [r.value for r in records.find(zoo.path, "accuracy", "{}")] == [0.75]


def test_many_files_become_one_with_the_same_content(zoo, one, monkeypatch):
    monkeypatch.setattr(records, "MANY", 5)
    for epoch in range(6):
        records.add(zoo.path, [replace(one, epoch=epoch), replace(one, epoch=0, value=epoch)])
    assert len(list((zoo.path / "records").iterdir())) == 1
    found = {r.epoch: r.value for r in records.find(zoo.path, "accuracy", "{}")}
    assert found == {0: 5.0, **dict.fromkeys(range(1, 6), 0.5)}


def test_a_changed_byte_is_found_and_nothing_of_the_file_is_used(zoo, one):
    zoo.models()
    records.add(zoo.path, [one])
    assert verify(zoo.path) == [] or all("records" not in f.path for f in verify(zoo.path))
    (file,) = (zoo.path / "records").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFile, match="not as it was written"):
        zoo.query("SELECT 1")
    with pytest.raises(CorruptFile, match=file.name):
        records.find(zoo.path, "accuracy", "{}")
    assert [f.fault for f in verify(zoo.path) if f.path.startswith("records")] == [
        "not as it was written"
    ]


def is_a_folder(folder, whole):
    (folder / "0000000000000000-0123456789abcdef.parquet").mkdir()


def is_no_table(folder, whole):
    (folder / f"0000000000000000-{files.checksum(b'x')}.parquet").write_bytes(b"x")


def is_another_table(folder, whole):
    table = pq.read_table(whole).drop_columns(["part"])
    pq.write_table(table, folder / "x")
    checksum = files.checksum((folder / "x").read_bytes())
    (folder / "x").rename(folder / f"0000000000000000-{checksum}.parquet")


@pytest.mark.parametrize("damage", [is_a_folder, is_no_table, is_another_table])
def test_a_file_that_holds_no_records_is_a_fault_in_one_line(zoo, one, damage):
    records.add(zoo.path, [one])
    folder = zoo.path / "records"
    damage(folder, next(folder.iterdir()))
    for read in (lambda: records.find(zoo.path, "accuracy", "{}"), lambda: zoo.query("SELECT 1")):
        with pytest.raises(CorruptFile, match="records") as fault:
            read()
        assert "\n" not in str(fault.value)
