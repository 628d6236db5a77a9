"""The index: a cache that follows the models' own files, and is never believed too much."""

import json
import os
import shutil
import threading
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vitarium import Zoo
from vitarium.core import files
from vitarium.core.errors import CorruptFile, DamagedCache, NotReadable, NotWritable
from vitarium.zoo import Record, database
from vitarium.zoo import _index as index
from vitarium.zoo import _index_entries as entries
from vitarium.zoo import _index_files as index_files
from vitarium.zoo import _index_loading as index_loading


@pytest.fixture
def zoo(written_zoo):
    return written_zoo.path


@pytest.fixture
def read(monkeypatch):
    """Names of the models whose files are read."""
    names = []
    original = entries.read

    def noting(folder):
        names.append(folder.name)
        return original(folder)

    monkeypatch.setattr(entries, "read", noting)
    return names


def ids(zoo):
    return sorted(path.name for path in (zoo / "models").iterdir())


def lines(zoo, id):
    text = (zoo / "models" / id / "epochs.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()[:-1]]  # the last one is a checksum


def change(zoo, id, accuracy=0.875):
    """Another last accuracy in a model's file, as training would write it."""
    epochs = lines(zoo, id)
    epochs[-1]["metrics"]["test_accuracy"] = accuracy
    files.write_lines(zoo / "models" / id / "epochs.jsonl", epochs)


def measure(zoo, id):
    record = Record(1, "weight_norm", {"p": 2}, 1.5, "1")
    files.write_lines(zoo / "models" / id / "records.jsonl", [vars(record)])


def content(tables):
    return [getattr(tables, name).to_pylist() for name in index_files.NAMES]


def test_rows_are_what_the_models_own_files_say(zoo):
    rows = {row["id"]: row for row in index.rows(zoo)}
    assert list(rows) == ids(zoo)
    for id, row in rows.items():
        spec = json.loads((zoo / "models" / id / "model.json").read_text())["spec"]
        epochs = lines(zoo, id)
        assert row["stage"] == spec["stage"]
        assert row["parent"] == spec["parent"]
        assert row["optimizer"] == spec["recipe"]["optimizer"]["name"]
        assert row["optimizer.lr"] == spec["recipe"]["optimizer"]["lr"]
        assert row["augmentation.scale"] == spec["recipe"]["augmentation"]["scale"]
        assert row["seed"] == spec["recipe"]["seed"]
        assert row["last_epoch"] == epochs[-1]["number"]
        assert row["test_accuracy"] == epochs[-1]["metrics"]["test_accuracy"]
        assert row["seconds"] == sum(e["metrics"].get("seconds", 0) for e in epochs)
        assert row["status"] == "finished"


def test_nothing_is_read_again_while_nothing_changes(zoo, read):
    first = index.rows(zoo)
    assert sorted(read) == ids(zoo)
    read.clear()
    assert index.rows(zoo) == first
    database.Database(zoo)
    assert read == []


def test_only_models_whose_files_changed_are_read_again(zoo, read):
    index.rows(zoo)
    read.clear()
    changed, measured = ids(zoo)[1], ids(zoo)[3]
    change(zoo, changed)
    measure(zoo, measured)
    found = {row["id"]: row["test_accuracy"] for row in index.rows(zoo)}
    assert read == [changed, measured]
    assert found[changed] == 0.875
    assert index.tables(zoo).records.to_pylist()[0]["model"] == measured


def test_an_index_that_grew_is_the_one_that_is_made_at_once(zoo):
    away = zoo.parent / "away"
    away.mkdir()
    for id in ids(zoo)[::2]:
        shutil.move(zoo / "models" / id, away / id)
    index.rows(zoo)
    for path in away.iterdir():
        shutil.move(path, zoo / "models" / path.name)
    change(zoo, ids(zoo)[1])
    grown = content(index.tables(zoo))
    index.remove(zoo)
    assert content(index.tables(zoo)) == grown


def test_a_model_that_is_gone_is_gone_from_every_table(zoo):
    gone = ids(zoo)[2]
    measure(zoo, gone)
    assert all(gone in str(rows) for rows in content(index.tables(zoo)))
    shutil.rmtree(zoo / "models" / gone)
    assert gone not in str([row["id"] for row in index.rows(zoo)])
    tables = index.tables(zoo)
    assert gone not in {*tables.epochs["model"].to_pylist(), *tables.records["model"].to_pylist()}
    assert len(index.rows(zoo)) == 5


def test_a_folder_without_a_description_is_no_model(zoo):
    (zoo / "models" / "half").mkdir()
    (zoo / "models" / "stray.txt").write_text("")
    assert len(index.rows(zoo)) == 6


def test_an_empty_zoo_has_empty_tables(tmp_path):
    zoo = Zoo.create(tmp_path / "empty").path
    assert index.rows(zoo) == []
    assert database.Database(zoo).rows("SELECT count(*) FROM epochs")[1] == [(0,)]


def test_on_a_read_only_disk_all_works_and_nothing_is_written(zoo, monkeypatch):
    expected = index.rows(zoo)
    index.remove(zoo)

    def refused(path, content, **options):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(files, "write", refused)
    assert index.rows(zoo) == expected
    assert database.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert not (zoo / "index").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_to_write_is_listed(zoo):
    zoo.chmod(0o500)
    try:
        assert len(index.rows(zoo)) == 6
    finally:
        zoo.chmod(0o700)


@pytest.mark.parametrize("name", index_files.NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not parquet",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-8] + bytes(8),
        lambda whole: whole[: len(whole) // 2] + bytes(len(whole) // 2 - 12) + whole[-12:],
        lambda whole: whole.replace(b"vitarium", b"vitaritm"),  # the key of our own words
        lambda whole: whole.replace(b"generation", b"generatiom"),
    ],
)
def test_a_damaged_index_is_made_anew(zoo, name, damage, monkeypatch):
    monkeypatch.setattr(index_files, "PATIENCE", 0.1)
    expected = content(index.tables(zoo))
    path = index_files.path_of(zoo, name)
    path.write_bytes(damage(path.read_bytes()))
    said = index.disagreements(zoo)
    assert len(said) == 1
    assert f"{name}.parquet is not as it was written" in said[0]
    with pytest.warns(DamagedCache, match="the index of .* was damaged and has been rebuilt"):
        assert database.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert content(index.tables(zoo)) == expected
    assert index.disagreements(zoo) == []


def is_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("no folder")


def leads_nowhere(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def folder_at(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()
        (folder / name / "x").write_text("")

    return damage


def checksums(text):
    return lambda folder: (folder / index_files.CHECKSUMS).write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        is_a_file,
        leads_nowhere,
        folder_at("models.parquet"),
        folder_at(index_files.CHECKSUMS),
        lambda folder: (folder / "models.parquet").unlink(),
        lambda folder: (folder / index_files.CHECKSUMS).unlink(),
        checksums(""),
        checksums("[" * 100_000),
        checksums('"models"'),
        checksums('{"models": "0123456789abcdef"}'),
        checksums(files.with_checksum({"models": 5, "epochs": {}, "records": None})),
        checksums(files.with_checksum({"unknown": "0123456789abcdef"})),
    ],
)
def test_whatever_lies_where_the_index_should_it_is_made_anew(zoo, damage, monkeypatch):
    monkeypatch.setattr(index_files, "PATIENCE", 0.1)
    expected = content(index.tables(zoo))
    damage(zoo / "index")
    assert index.disagreements(zoo)
    with pytest.warns(DamagedCache, match="the index of .* was damaged and has been rebuilt"):
        assert database.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    with warnings.catch_warnings(action="error"):
        assert content(index.tables(zoo)) == expected
    assert index.disagreements(zoo) == []


def test_a_damaged_index_that_cannot_be_written_is_made_anew_each_time(zoo, monkeypatch):
    monkeypatch.setattr(index_files, "PATIENCE", 0.1)
    expected = content(index.tables(zoo))
    index_files.path_of(zoo, "models").write_text("damaged")

    def refused(path, content, root):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(files, "write", refused)
    for _ in range(2):
        with pytest.warns(DamagedCache, match="cannot be written; it is made anew each time"):
            assert content(index.tables(zoo)) == expected


def test_an_index_that_cannot_be_read_is_made_anew(zoo, monkeypatch):
    monkeypatch.setattr(index_files, "PATIENCE", 0.1)
    expected = content(index.tables(zoo))

    def refused(path, *args, **options):
        if "index" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", refused)
    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.warns(DamagedCache):
        assert content(index.tables(zoo)) == expected
    with pytest.warns(DamagedCache):
        assert database.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]


@pytest.mark.parametrize(
    "metadata", [{}, {b"other": b"{}"}, {b"vitarium": b"\xff"}, {b"vitarium": b'["version"]'}]
)
def test_words_that_are_not_ours_are_not_believed(zoo, metadata):
    """Though the checksums are right."""
    expected = content(index.tables(zoo))
    for name in index_files.NAMES:
        path = index_files.path_of(zoo, name)
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    reseal(zoo)
    with pytest.warns(DamagedCache):
        assert database.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert content(index.tables(zoo)) == expected


def test_what_a_killed_process_leaves_is_no_index(zoo):
    (zoo / "index").mkdir()
    (zoo / "index" / ".checksums.json.123.tmp").write_text("half")
    assert index.disagreements(zoo) == []
    with warnings.catch_warnings(action="error"):
        assert len(index.rows(zoo)) == 6


def rewrite(zoo, name, table, **words):
    """Put another table in a file's place, with metadata that look right unless told otherwise."""
    path = index_files.path_of(zoo, name)
    found = json.loads(pq.read_schema(path).metadata[index_files.METADATA.encode()])
    table = table.replace_schema_metadata({index_files.METADATA: json.dumps(found | words)})
    pq.write_table(table, path)
    reseal(zoo)


def reseal(zoo):
    """Checksums that look right."""
    sums = {n: files.checksum(index_files.path_of(zoo, n).read_bytes()) for n in index_files.NAMES}
    files.write_sealed(zoo / "index" / index_files.CHECKSUMS, sums)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("models", lambda t: t.drop_columns(["_entry"])),
        ("models", lambda t: t.set_column(0, "id", pa.array(range(6)))),
        ("models", lambda t: pa.concat_tables([t, t])),
        ("models", lambda t: t.append_column("x", pa.array([[1]] * 6))),
        ("epochs", lambda t: t.set_column(1, "epoch", pa.array(["a"] * len(t)))),
        ("epochs", lambda t: t.drop_columns(["kept"])),
        ("records", lambda t: t.append_column("VALUE", pa.array([], pa.float64()))),
    ],
)
def test_an_index_with_other_columns_is_not_believed(zoo, name, other):
    expected = content(index.tables(zoo))
    rewrite(zoo, name, other(pq.read_table(index_files.path_of(zoo, name))))
    database.Database(zoo)
    assert content(index.tables(zoo)) == expected


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "[]",
        "{}",
        '{"facts": {}, "factors": {}, "metrics": {}}',
        '{"facts": {"id": "ID"}, "factors": {}, "metrics": {}}',
    ],
)
def test_an_entry_that_is_none_is_not_believed(zoo, entry):
    expected = index.rows(zoo)
    table = pq.read_table(index_files.path_of(zoo, "models"))
    place = table.column_names.index("_entry")
    entries = [entry.replace("ID", id) for id in table["id"].to_pylist()]
    rewrite(zoo, "models", table.set_column(place, "_entry", pa.array(entries)))
    assert index.rows(zoo) == expected


@pytest.mark.parametrize("version", [1, 3, None, "2"])
def test_an_index_of_another_version_is_made_anew(zoo, version, read):
    index.rows(zoo)
    for name in index_files.NAMES:
        rewrite(zoo, name, pq.read_table(index_files.path_of(zoo, name)), version=version)
    assert index.disagreements(zoo) == []
    read.clear()
    with warnings.catch_warnings(action="error"):
        database.Database(zoo)
    assert sorted(read) == ids(zoo)


@pytest.mark.parametrize("headings", [{"nope": "x"}, {"seed": 1}, [], None])
def test_headings_that_are_none_are_not_believed(zoo, headings):
    expected = index.tables(zoo).headings
    for name in index_files.NAMES:
        rewrite(zoo, name, pq.read_table(index_files.path_of(zoo, name)), headings=headings)
    assert database.Database(zoo).headings == expected


def test_files_of_two_generations_are_not_mixed(zoo, monkeypatch):
    monkeypatch.setattr(index_files, "PATIENCE", 0.1)
    index.rows(zoo)
    old = index_files.path_of(zoo, "epochs").read_bytes()
    change(zoo, ids(zoo)[0])
    expected = content(index.tables(zoo))
    index_files.path_of(zoo, "epochs").write_bytes(old)
    assert database.Database(zoo).rows("SELECT max(test_accuracy) FROM epochs")[1] == [(0.875,)]
    assert content(index.tables(zoo)) == expected


def test_who_reads_while_another_writes_finds_one_of_both_states(zoo):
    whole = index.tables(zoo)
    half_ids = pa.array(ids(zoo)[:3])
    half = index.Tables(
        whole.models.filter(pc.is_in(whole.models["id"], half_ids)),
        whole.epochs.filter(pc.is_in(whole.epochs["model"], half_ids)),
        whole.records,
        whole.headings,
    )
    stop = threading.Event()

    def write():
        while not stop.is_set():
            index._write(zoo, half)
            index._write(zoo, whole)

    writer = threading.Thread(target=write)
    writer.start()
    found = []
    try:
        for _ in range(20):
            if loaded := index_loading._of_files(zoo, entries.stamps(zoo)):
                asked = "SELECT (SELECT count(*) FROM models), count(DISTINCT model) FROM epochs"
                found.append(loaded[0].execute(asked).fetchone())
            if by_arrow := index._read(zoo):
                epochs = set(by_arrow.epochs["model"].to_pylist())
                found.append((len(by_arrow.stamps), len(epochs)))
    finally:
        stop.set()
        writer.join()
    assert set(found) <= {(6, 6), (3, 3)}


def test_the_index_of_earlier_versions_is_removed(zoo):
    (zoo / "index.json").write_text("{}")
    index.rows(zoo)
    assert not (zoo / "index.json").exists()
    assert {path.name for path in (zoo / "index").iterdir()} == {
        index_files.CHECKSUMS,
        *(f"{name}.parquet" for name in index_files.NAMES),
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs.jsonl", "not json"),
        ("epochs.jsonl", '{"number": "one", "metrics": {}, "checkpoint": null}'),
        ("epochs.jsonl", '{"numbers": 1}'),
        ("result.json", '{"state": 1}'),
        ("records.jsonl", '{"epoch": 1}'),
        ("model.json", "{}"),
    ],
)
def test_a_damaged_file_of_a_model_is_named(zoo, name, text):
    id = ids(zoo)[0]
    (zoo / "models" / id / name).write_text(text)
    with pytest.raises(CorruptFile, match=id):
        index.rows(zoo)


def test_an_index_that_agrees_or_is_out_of_date_is_no_disagreement(zoo):
    assert index.disagreements(zoo) == []
    index.rows(zoo)
    assert index.disagreements(zoo) == []
    change(zoo, ids(zoo)[0])
    shutil.rmtree(zoo / "models" / ids(zoo)[1])
    assert index.disagreements(zoo) == []


@pytest.mark.parametrize("out_of_date", [False, True])
def test_a_change_that_left_no_trace_in_times_and_sizes_is_found(zoo, out_of_date):
    index.rows(zoo)
    id = ids(zoo)[0]
    path = zoo / "models" / id / "epochs.jsonl"
    status, epochs = path.stat(), lines(zoo, id)
    epochs[0]["metrics"]["lr"] = 0.6  # was 0.5: as many letters
    files.write_lines(path, epochs)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if out_of_date:
        change(zoo, ids(zoo)[1])
    said = index.disagreements(zoo)
    assert len(said) == 1
    assert id in said[0]
    assert "epochs" in said[0]


def test_a_number_changed_in_the_index_is_found(zoo):
    index.rows(zoo)
    table = pq.read_table(index_files.path_of(zoo, "models"))
    place = table.column_names.index("optimizer.lr")
    rewrite(zoo, "models", table.set_column(place, "optimizer.lr", pa.array([0.5] * 6)))
    said = index.disagreements(zoo)
    assert len(said) == 6
    assert all("(models)" in each for each in said)


@pytest.fixture
def unwritable(zoo, tmp_path, monkeypatch):
    """A zoo in which there can be no index, and where there is a cache."""
    write = files.write

    def refusing(path, content, **options):
        if path.is_relative_to(zoo / "index"):
            raise NotWritable(path, "it is on a disk that can only be read", "copy the zoo")
        write(path, content, **options)

    monkeypatch.setattr(files, "write", refusing)
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    return zoo


def test_the_index_of_a_zoo_that_cannot_be_written_lies_in_the_cache(unwritable, read):
    expected = ids(unwritable)
    assert list(index.tables(unwritable).stamps) == expected
    assert sorted(read) == expected
    read.clear()
    assert list(index.tables(unwritable).stamps) == expected
    assert list(Zoo.open(unwritable).query("SELECT id FROM models ORDER BY id")["id"]) == expected
    assert read == []
    change(unwritable, expected[0])
    assert len(Zoo.open(unwritable).models()) == len(expected)
    assert read == expected[:1]
    read.clear()
    Zoo.open(unwritable).reindex()
    assert sorted(read) == expected


def test_without_any_place_for_an_index_a_zoo_is_listed_all_the_same(unwritable, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(unwritable / "index" / "below a file"))
    assert list(index.tables(unwritable).stamps) == ids(unwritable)
    assert len(Zoo.open(unwritable).query("SELECT id FROM models")) == len(ids(unwritable))


def test_a_zoo_is_not_mixed_up_with_another_whose_name_its_own_is_a_pattern_of(zoo, tmp_path):
    star, other = (shutil.copytree(zoo, tmp_path / name) for name in ("st*r", "star"))
    for each in (star, other):
        index.tables(each)
    shutil.rmtree(star / "models" / ids(star)[0])
    index.tables(star)
    assert list(Zoo.open(star).query("SELECT id FROM models ORDER BY id")["id"]) == ids(star)


def test_a_model_that_may_not_be_read_is_told_and_not_left_out(zoo, monkeypatch):
    hidden, stat = ids(zoo)[1], os.stat

    def refusing(path, **more):
        if str(path).startswith(hidden):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", refusing)
    with pytest.raises(NotReadable, match=f"{hidden}/model.json"):
        entries.stamps(zoo)
