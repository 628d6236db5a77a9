"""The index: a cache that follows the models' own files, and is never believed too much."""

import json
import os
import shutil
import threading
import warnings
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vitarium import Zoo
from vitarium.blueprint import ImportedSpec, ModelSpec
from vitarium.core import files
from vitarium.core.config import Config
from vitarium.core.errors import CorruptFile, DamagedCache, NotReadable, NotWritable
from vitarium.zoo import Record, _index_tables, query
from vitarium.zoo import _index as index
from vitarium.zoo._index_version import field_names, index_version
from vitarium.zoo._model_files import model_stamps


@pytest.fixture
def zoo(written_zoo):
    return written_zoo.path


@pytest.fixture
def read(monkeypatch):
    """Names of the models whose files are read."""
    names = []
    original = _index_tables.read_entry

    def noting(folder, stage_labels):
        names.append(folder.name)
        return original(folder, stage_labels)

    monkeypatch.setattr(_index_tables, "read_entry", noting)
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


def content(zoo):
    loaded = index.load(zoo, with_entries=True)
    tables = [loaded.database.execute(f"FROM {name}").fetchall() for name in index.TABLES]
    return loaded.headings, loaded.entries, loaded.stamps, index.columns(loaded.database), tables


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
    query.Database(zoo)
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
    assert query.Database(zoo).rows("SELECT model FROM records")[1] == [(measured,)]


def test_an_index_that_grew_is_the_one_that_is_made_at_once(zoo):
    away = zoo.parent / "away"
    away.mkdir()
    for id in ids(zoo)[::2]:
        shutil.move(zoo / "models" / id, away / id)
    index.rows(zoo)
    for path in away.iterdir():
        shutil.move(path, zoo / "models" / path.name)
    change(zoo, ids(zoo)[1])
    grown = content(zoo)
    index.remove(zoo)
    assert content(zoo) == grown


def test_a_model_that_is_gone_is_gone_from_every_table(zoo):
    gone = ids(zoo)[2]
    measure(zoo, gone)
    assert all(gone in str(rows) for rows in content(zoo)[-1])
    shutil.rmtree(zoo / "models" / gone)
    assert not any(f"('{gone}'" in str(rows) for rows in content(zoo)[-1])
    assert len(index.rows(zoo)) == 5


def test_a_folder_without_a_description_is_no_model(zoo):
    (zoo / "models" / "half").mkdir()
    (zoo / "models" / "stray.txt").write_text("")
    assert len(index.rows(zoo)) == 6


def test_an_empty_zoo_has_empty_tables(tmp_path):
    zoo = Zoo.create(tmp_path / "empty").path
    assert index.rows(zoo) == []
    assert query.Database(zoo).rows("SELECT count(*) FROM epochs")[1] == [(0,)]


def test_on_a_read_only_disk_all_works_and_nothing_is_written(zoo, monkeypatch):
    expected = index.rows(zoo)
    index.remove(zoo)

    def refused(path, content, **options):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(files, "write", refused)
    assert index.rows(zoo) == expected
    assert query.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert not (zoo / "index").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_to_write_is_listed(zoo):
    zoo.chmod(0o500)
    try:
        assert len(index.rows(zoo)) == 6
    finally:
        zoo.chmod(0o700)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not parquet",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-8] + bytes(8),
        lambda whole: whole[: len(whole) // 2] + bytes(len(whole) // 2 - 12) + whole[-12:],
        lambda whole: whole.replace(b"vitarium", b"vitaritm"),  # the key of our own words
        lambda whole: whole.replace(b"checksum", b"checksun"),
        lambda whole: whole + b" ",
    ],
)
def test_a_damaged_index_is_made_anew(zoo, damage):
    expected = content(zoo)
    path = index.path_of(zoo)
    path.write_bytes(damage(path.read_bytes()))
    disagreements = _index_tables.disagreements(zoo)
    assert len(disagreements) == 1
    assert f"{path} is not as it was written" in disagreements[0]
    with pytest.warns(DamagedCache, match="the index of .* was damaged and has been rebuilt"):
        assert query.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert content(zoo) == expected
    assert _index_tables.disagreements(zoo) == []


def is_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("no folder")


def leads_nowhere(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def is_full(folder):
    (folder / "tables.parquet").unlink()
    (folder / "tables.parquet" / "x").mkdir(parents=True)


def is_a_pipe(folder):
    (folder / "tables.parquet").unlink()
    os.mkfifo(folder / "tables.parquet")


@pytest.mark.parametrize("damage", [is_a_file, leads_nowhere, is_full, is_a_pipe])
def test_whatever_lies_where_the_index_should_it_is_made_anew(zoo, damage):
    expected = content(zoo)
    damage(zoo / "index")
    assert _index_tables.disagreements(zoo)
    with pytest.warns(DamagedCache, match="the index of .* was damaged and has been rebuilt"):
        assert query.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    with warnings.catch_warnings(action="error"):
        assert content(zoo) == expected
    assert _index_tables.disagreements(zoo) == []


def test_a_damaged_index_that_cannot_be_written_is_made_anew_each_time(zoo, monkeypatch):
    expected = content(zoo)
    index.path_of(zoo).write_text("damaged")

    def refused(path, content, root):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(files, "write", refused)
    for _ in range(2):
        with pytest.warns(DamagedCache, match="cannot be written; it is made anew each time"):
            assert content(zoo) == expected


def test_an_index_that_cannot_be_read_is_made_anew(zoo, monkeypatch):
    expected = content(zoo)

    def refused(path, *args, **options):
        if str(path).endswith("tables.parquet"):
            raise PermissionError(13, "Permission denied", str(path))
        return open_(path, *args, **options)

    open_ = os.open
    monkeypatch.setattr(os, "open", refused)
    with pytest.warns(DamagedCache):
        assert content(zoo) == expected
    with pytest.warns(DamagedCache):
        assert query.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]


@pytest.mark.parametrize("metadata", [{}, {"other": "{}"}, {"vitarium": '["version"]'}])
def test_words_that_are_not_ours_are_not_believed(zoo, metadata):
    """Though the checksum, wherever it stands, is right."""
    expected = content(zoo)
    rewrite(zoo, lambda table: table, metadata | {"z": json.dumps({"checksum": "0" * 16})})
    with pytest.warns(DamagedCache):
        assert query.Database(zoo).rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert content(zoo) == expected


def test_what_a_killed_process_leaves_is_no_index(zoo):
    (zoo / "index").mkdir()
    (zoo / "index" / ".tables.parquet.123.tmp").write_text("half")
    assert _index_tables.disagreements(zoo) == []
    with warnings.catch_warnings(action="error"):
        assert len(index.rows(zoo)) == 6


def rewrite(zoo, change, metadata=None, **words):
    """Put another table in the file's place, with metadata and a checksum that look right."""
    path = index.path_of(zoo)
    written = json.loads(pq.read_metadata(path).metadata[index.METADATA.encode()])
    words = written | words
    words["checksum"] = words.pop("checksum").replace(words.get("checksum", ""), "") or "0" * 16
    table = change(pq.read_table(path))
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata or {index.METADATA: json.dumps(words)})
    path.write_bytes(index.seal(path.read_bytes()))


def put(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t.drop_columns(["_entry"]),
        lambda t: t.drop_columns(["models:id"]),
        lambda t: put(t, "models:id", pa.array(range(len(t)))),
        lambda t: pa.concat_tables([t, t]),
        lambda t: t.append_column("models:x", pa.array([[1]] * len(t))),
        lambda t: put(t, "epochs:epoch", pa.array(["a"] * len(t))),
        lambda t: t.drop_columns(["epochs:kept"]),
    ],
)
def test_an_index_with_other_columns_is_not_believed(zoo, other):
    expected = content(zoo)
    rewrite(zoo, other)
    query.Database(zoo)
    assert content(zoo) == expected


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
    rewrite(
        zoo,
        lambda table: put(
            table,
            "_entry",
            pa.array([id and entry.replace("ID", id) for id in table["models:id"].to_pylist()]),
        ),
    )
    assert index.rows(zoo) == expected


@pytest.mark.parametrize("version", [1, 10, index.VERSION + "0", None])
def test_an_index_of_another_version_is_made_anew(zoo, version, read):
    index.rows(zoo)
    rewrite(zoo, lambda table: table, version=version)
    assert _index_tables.disagreements(zoo) == []
    read.clear()
    with warnings.catch_warnings(action="error"):
        query.Database(zoo)
    assert sorted(read) == ids(zoo)


def fields(kind):
    """Of a configuration, and of those inside of it."""
    names = set(kind.model_fields)
    for field in kind.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Config):
                names |= fields(inner)
    return names


def test_the_version_follows_from_the_names_of_all_factors(tmp_path):
    expected = fields(ModelSpec) | fields(ImportedSpec)
    assert {"optimizer", "patience", "decay", "split", "initial_epoch", "keep_head"} <= expected
    assert expected <= field_names()
    source = "class Recipe(Config):\n    epochs: int\n{}"
    versions = set()
    for more in ("", "    # another remark\n", "    ema_warmup: bool = False\n"):
        (tmp_path / "recipe.py").write_text(source.format(more))
        versions.add(index_version(tmp_path))
    assert len(versions) == 2


def test_a_heading_is_no_other_factor_of_the_zoo():
    factors = {"optimizer": "sam", "optimizer.base": "sgd", "seed": 0}
    of_sam = [factors | {"optimizer.base.lr": lr} for lr in (0.1, 0.2)]
    of_sgd = {"optimizer": "sgd", "optimizer.lr": 0.1, "seed": 0}
    alone = _index_tables._headings([entry(factors) for factors in of_sam])
    assert alone == {"optimizer.base.lr": "lr"}
    headings = _index_tables._headings([entry(factors) for factors in (*of_sam, of_sgd)])
    assert headings["optimizer.base.lr"] == "optimizer.base.lr"


def entry(factors):
    return {"facts": {"stage": "train"}, "factors": factors}


@pytest.mark.parametrize("headings", [{"nope": "x"}, {"seed": 1}, [], None])
def test_headings_that_are_none_are_not_believed(zoo, headings):
    expected = index.load(zoo).headings
    rewrite(zoo, lambda table: table, headings=headings)
    assert query.Database(zoo).headings == expected


def test_who_reads_while_another_writes_finds_one_of_both_states(zoo):
    stamps = model_stamps(zoo)
    half = dict(list(stamps.items())[:3])
    files_of = [index.build(zoo, part, {})[1] for part in (half, stamps)]
    index._write(zoo, files_of[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in files_of:
                index._write(zoo, content)

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    try:
        for _ in range(20):
            if loaded := index.read(zoo, with_entries=True):
                request = "SELECT (SELECT count(*) FROM models), count(DISTINCT model) FROM epochs"
                counts.append((len(loaded.entries), *loaded.database.execute(request).fetchone()))
    finally:
        stop.set()
        writer.join()
    assert set(counts) <= {(6, 6, 6), (3, 3, 3)}
    assert counts


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


@pytest.mark.parametrize(
    "values",
    [
        {"number": "one"},
        {"number": -1},
        {"checkpoint": 5},
        {"metrics": [1.0]},
    ],
)
def test_an_epoch_that_is_none_is_named(zoo, values):
    id = ids(zoo)[0]
    epochs = lines(zoo, id)
    epochs[-1] |= values
    files.write_lines(zoo / "models" / id / "epochs.jsonl", epochs)
    with pytest.raises(CorruptFile, match=f"line {len(epochs)}"):
        index.rows(zoo)


def test_an_index_that_agrees_or_is_out_of_date_is_no_disagreement(zoo):
    assert _index_tables.disagreements(zoo) == []
    index.rows(zoo)
    assert _index_tables.disagreements(zoo) == []
    change(zoo, ids(zoo)[0])
    shutil.rmtree(zoo / "models" / ids(zoo)[1])
    assert _index_tables.disagreements(zoo) == []


@pytest.mark.parametrize("out_of_date", [False, True])
def test_a_change_that_left_no_trace_in_times_and_sizes_is_found(zoo, out_of_date):
    index.rows(zoo)
    id = ids(zoo)[0]
    path = zoo / "models" / id / "epochs.jsonl"
    status, epochs = path.stat(), lines(zoo, id)
    epochs[0]["metrics"]["epoch_lr"] = 0.6  # was 0.5: as many letters
    files.write_lines(path, epochs)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if out_of_date:
        change(zoo, ids(zoo)[1])
    disagreements = _index_tables.disagreements(zoo)
    assert len(disagreements) == 1
    assert id in disagreements[0]
    assert "epochs" in disagreements[0]


def test_a_number_changed_in_the_index_is_found(zoo):
    index.rows(zoo)
    name = "models:optimizer.lr"
    rewrite(zoo, lambda table: put(table, name, pa.array([0.5] * len(table))))
    disagreements = _index_tables.disagreements(zoo)
    assert len(disagreements) == 6
    assert all("(models)" in each for each in disagreements)


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
    assert list(index.load(unwritable).stamps) == expected
    assert sorted(read) == expected
    read.clear()
    assert list(index.load(unwritable).stamps) == expected
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
    assert list(index.load(unwritable).stamps) == ids(unwritable)
    assert len(Zoo.open(unwritable).query("SELECT id FROM models")) == len(ids(unwritable))


def test_a_zoo_is_not_mixed_up_with_another_whose_name_its_own_is_a_pattern_of(zoo, tmp_path):
    star, other = (shutil.copytree(zoo, tmp_path / name) for name in ("st*r", "star"))
    for each in (star, other):
        index.load(each)
    shutil.rmtree(star / "models" / ids(star)[0])
    index.load(star)
    assert list(Zoo.open(star).query("SELECT id FROM models ORDER BY id")["id"]) == ids(star)


def test_a_model_that_may_not_be_read_is_told_and_not_left_out(zoo, monkeypatch):
    hidden, stat = ids(zoo)[1], os.stat

    def refusing(path, **more):
        if str(path).startswith(hidden):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", refusing)
    with pytest.raises(NotReadable, match=f"{hidden}/model.json"):
        model_stamps(zoo)
