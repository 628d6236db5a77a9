"""SQL over a zoo: what it finds, and what it refuses."""

import json
import math
import os
import shutil
import signal
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from vitarium import Blueprint, Zoo, plan
from vitarium.core import files
from vitarium.core.errors import InvalidInput, QueryTimeout, QueryTooLarge, UnknownName
from vitarium.zoo import About, Record, _index_tables
from vitarium.zoo import _index as index
from vitarium.zoo import _query_limits as query_limits
from vitarium.zoo import listing as listing_module
from vitarium.zoo import query as query_module
from vitarium.zoo._index_tables import table
from vitarium.zoo.listing import listing
from vitarium.zoo.query import Database


@pytest.fixture(scope="module")
def shared(written_once, tmp_path_factory):
    """A zoo with an index, to be read alone."""
    zoo = Zoo.open(shutil.copytree(written_once, tmp_path_factory.mktemp("query") / "zoo"))
    zoo.models()
    return zoo


@pytest.fixture
def zoo(shared, tmp_path):
    return Zoo.open(shutil.copytree(shared.path, tmp_path / "zoo"))


@pytest.fixture(scope="module")
def database(shared):
    """What `Zoo.query` asks."""
    return Database(shared.path)


def rows_by_model(zoo):
    loaded = index.load(zoo.path, with_entries=True)
    rows = {name: _index_tables._rows(loaded.database, name) for name in index.TABLES}
    return _index_tables._rows_by_model(loaded.entries, rows)


def write_epochs(zoo, id, values):
    files.write_lines(zoo.path / "models" / id / "epochs.jsonl", values)


def test_models_are_the_rows_of_the_zoo(zoo):
    asked = "SELECT id, stage, optimizer.lr, last_epoch, test_accuracy, seconds FROM models"
    rows = zoo.query(asked).set_index("id")
    expected = zoo.models().set_index("id")[list(rows.columns)]
    pd.testing.assert_frame_equal(rows, expected, check_dtype=False)


def test_every_column_of_the_zoos_table_can_be_asked_for(zoo):
    assert set(Database(zoo.path).columns["models"]) == set(zoo.models().columns)


def test_epochs_are_the_lines_of_the_models_files(zoo):
    rows = zoo.query("SELECT * FROM epochs ORDER BY model, epoch")
    expected = pd.concat([zoo.epochs(id).assign(model=id) for id in zoo.ids()], ignore_index=True)
    pd.testing.assert_frame_equal(rows, expected[list(rows.columns)], check_dtype=False)


def test_records_are_measured_numbers_with_their_settings(zoo):
    id = zoo.ids()[0]
    records = [Record(e, "weight_norm", {"p": 2, "a": [e]}, e / 8, "1") for e in (0, 1)]
    files.write_lines(zoo.folder(id).path / "records.jsonl", [asdict(one) for one in records])
    rows = zoo.query("SELECT *, settings->>'$.p' AS p FROM records ORDER BY epoch")
    assert list(rows["model"]) == [id, id]
    assert [json.loads(text) for text in rows["settings"]] == [r.settings for r in records]
    assert list(rows["value"]) == [0, 0.125]
    assert list(rows["p"]) == ["2", "2"]


def test_a_grouping_is_that_of_pandas(zoo):
    asked = "SELECT stage, avg(test_accuracy) a FROM models GROUP BY stage ORDER BY stage"
    found, expected = zoo.query(asked), zoo.models().groupby("stage")["test_accuracy"].mean()
    assert list(found["stage"]) == list(expected.index)
    assert found["a"].tolist() == pytest.approx(expected.tolist())


def test_what_a_model_does_not_have_is_null(zoo):
    write_epochs(zoo, zoo.ids()[0], [])
    asked = "SELECT id FROM models WHERE test_accuracy IS NULL AND last_epoch IS NULL"
    assert list(zoo.query(asked)["id"]) == [zoo.ids()[0]]
    without = zoo.query("SELECT stage FROM models WHERE optimizer.momentum IS NULL")
    assert set(without["stage"]) == {"pretrain"}


def test_a_factor_that_is_text_in_one_model_and_a_list_in_another_is_text(tiny, tmp_path):
    tiny["stages"]["pretrain"]["grid"] = {"checkpoints": ["all", [0, 2]]}
    zoo = Zoo.create(tmp_path / "mixed")
    for spec in plan(Blueprint.read(tiny)).of_stage("pretrain"):
        zoo.folder(spec.id).begin(spec, About(10, (), {}))
    rows = zoo.query("SELECT checkpoints FROM models WHERE stage = 'pretrain' ORDER BY ALL")
    assert list(rows["checkpoints"]) == ["[0, 2]", "all"]
    assert sorted(map(str, zoo.models()["checkpoints"])) == ["[0, 2]", "all"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2], [1, None, 2]),
        ([1, 0.5], [1.0, 0.5]),
        ([True, None], [True, None]),
        ([True, 1], ["true", "1"]),
        (["a", 1, 0.5, None, [1], {"b": None}], ["a", "1", "0.5", None, "[1]", '{"b": null}']),
        ([2**63, 1], [str(2**63), "1"]),
        ([10**400, 0.5], [str(10**400), "0.5"]),
        (["\ud800"], ["?"]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_a_column_has_the_narrowest_type_that_holds_its_values(values, expected):
    column = table([{"x": value} for value in values], {"x": None})["x"].to_pylist()
    assert column == expected
    assert [type(value) for value in column] == [type(value) for value in expected]


def test_not_a_number_stays_one():
    assert math.isnan(table([{"x": math.nan}], {"x": None})["x"].to_pylist()[0])


def test_names_that_sql_takes_for_one_are_told_apart():
    assert table([{}], dict.fromkeys(["loss", "Loss", "LOSS"])).column_names == [
        "loss",
        "Loss_2",
        "LOSS_3",
    ]


@pytest.mark.parametrize("extra", ["text", [1, 2], True, None, 10**400])
def test_a_metric_of_any_kind_breaks_nothing(zoo, extra):
    index.rows(zoo.path)
    for id, value in zip(zoo.ids(), (extra, 0.5), strict=False):
        metrics = {"odd": value, "id": 7, "model": 8, "Epoch": 1}
        write_epochs(zoo, id, [{"number": 0, "metrics": metrics, "checkpoint": None}])
    assert list(zoo.query("SELECT id, odd FROM models ORDER BY id")["id"]) == zoo.ids()
    assert zoo.query("SELECT count(DISTINCT model) n FROM epochs")["n"][0] == 6
    grown = rows_by_model(zoo)
    index.remove(zoo.path)
    assert rows_by_model(zoo) == grown
    write_epochs(zoo, zoo.ids()[0], [])
    assert len(zoo.query("SELECT odd FROM models WHERE odd = 0.5")) == 1


@pytest.mark.parametrize(
    "asked",
    [
        "SELECT optimizer.lr FROM models",
        'SELECT "optimizer.lr" FROM models',
        "SELECT m.optimizer.lr FROM models m",
        'SELECT m."optimizer.lr" FROM models m',
        "SELECT OPTIMIZER.LR FROM models -- optimizer.lr",
        "SELECT optimizer.lr FROM models /* 'optimizer.lr */ WHERE 'optimizer.lr' != 'x'",
    ],
)
def test_a_name_with_dots_needs_no_quotes(shared, database, asked):
    rows = database.rows(asked)[1]
    assert sorted(rows) == sorted((lr,) for lr in shared.models()["optimizer.lr"])


def test_text_with_dots_stays_text(database):
    asked = "SELECT 'optimizer.lr', $$optimizer.lr$$, 'it''s optimizer.lr' FROM models LIMIT 1"
    rows = database.rows(asked)[1]
    assert rows == [("optimizer.lr", "optimizer.lr", "it's optimizer.lr")]


FILES = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')",
    "SELECT * FROM parquet_kv_metadata('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM enable_logging(storage := 'file', storage_path := '{folder}/log')",
    "SELECT * FROM enable_profiling(save_location := '{folder}/profile')",
    "SELECT * FROM query('COPY models TO ''{folder}/x.csv''')",
    "COPY models TO '{folder}/x.csv'",
    "COPY models FROM '/etc/passwd'",
    "EXPORT DATABASE '{folder}/x'",
    "IMPORT DATABASE '{folder}/x'",
    "ATTACH '{folder}/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET threads = 1",
    "RESET threads",
    "CREATE SECRET s (TYPE s3)",
    "SELECT 1; COPY models TO '{folder}/x.csv'",
]
"""What reaches for files, extensions or settings."""
OTHERS = [
    "LOAD json",
    "PRAGMA version",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "DROP TABLE models",
    "DELETE FROM models",
    "UPDATE models SET stage = 'x'",
    "INSERT INTO models SELECT * FROM models",
    "EXPLAIN ANALYZE SELECT 1",
    "CALL enable_logging()",
    "CHECKPOINT",
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("sql", FILES + OTHERS)
def test_a_query_reads_the_tables_and_does_nothing_else(database, tmp_path, sql):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(InvalidInput) as refused:
        database.frame(sql.format(folder=folder))
    assert "\n" not in str(refused.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("sql", FILES)
def test_duckdb_itself_refuses_what_we_might_let_through(database, tmp_path, sql):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(duckdb.Error):
        database._duckdb.execute(sql.format(folder=folder)).fetchall()
    assert list(folder.iterdir()) == []


def test_our_own_variables_are_no_tables(zoo):
    secret = pd.DataFrame({"a": [1]})
    with pytest.raises(UnknownName, match="unknown table 'secret'"):
        zoo.query("SELECT * FROM secret")
    assert len(secret) == 1


def test_a_path_with_the_letters_of_patterns_and_quotes_is_a_path(zoo):
    strange = zoo.path.with_name("it's [a] *zoo* key=1?")
    zoo.path.rename(strange)
    for _ in range(2):
        database = Database(strange)
        assert database.rows("SELECT count(*) FROM models")[1] == [(6,)]
        assert "key" not in database.columns["models"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM modles", "unknown table 'modles'; did you mean 'models'?"),
        ("SELECT * FROM x", "unknown table 'x'; known: epochs, models, records"),
        ("SELECT test_acuracy FROM models", "did you mean 'test_accuracy'"),
        ("SELECT m.stagee FROM models m", "did you mean 'stage'"),
        ("SELECT * EXCLUDE (stagee) FROM models", "did you mean 'stage'"),
        ("SELECT optimizer_lr FROM models", "did you mean 'optimizer.lr'"),
        ("SELECT 1 FROM models WHERE optimizer.lrr < 1", "did you mean 'optimizer.lr'"),
        (
            "SELECT id FROM models WHERE stage = finetune",
            "'finetune' (a text stands in single quotes: 'finetune'",
        ),
        ("SELECT id FROM models WHERE zq = 1", "known: "),
        ("SELEC 1", "syntax error at or near"),
        ("SELECT stage::INT FROM models", "Could not convert string"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(database, sql, message):
    with pytest.raises(InvalidInput) as told:
        database.frame(sql)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_a_pivot_is_a_question(zoo):
    rows = zoo.query("PIVOT models ON stage USING count(*) GROUP BY optimizer ORDER BY optimizer")
    assert rows[["finetune", "pretrain"]].values.tolist() == [[0, 2], [4, 0]]


# Limits

ENDLESS = "SELECT count(*) FROM range(1000000000000) AS a, range(1000000000000) AS b"
WITHOUT_END = "SELECT * FROM range(1000000000000)"
"""Its first rows are there at once."""


@pytest.mark.parametrize("sql", [ENDLESS, WITHOUT_END])
def test_a_query_without_end_is_stopped_in_time(zoo, sql, monkeypatch):
    monkeypatch.setattr(query_limits, "ROWS_SHARE", math.inf)
    monkeypatch.setattr(query_limits, "FRAME_SHARE", math.inf)
    asked = Database(zoo.path, timeout=0.05)
    for ask in (asked.rows, asked.frame, lambda sql: list(asked.arrow(sql)[1])):
        with pytest.raises(
            QueryTimeout, match=r"more than 0\.05 s and was stopped.*timeout=SECONDS"
        ):
            ask(sql)
    assert asked.rows("SELECT count(*) FROM models")[1] == [(6,)]
    assert not query_limits.is_any_left_behind()
    with pytest.raises(QueryTimeout):
        zoo.query(sql, timeout=0.05)


def test_a_condition_without_end_is_stopped_in_time(zoo, monkeypatch):
    monkeypatch.setattr(listing_module, "Database", partial(Database, timeout=0.05))
    with pytest.raises(QueryTimeout):
        listing(zoo.path, where=f"({ENDLESS}) > 0")


@pytest.mark.parametrize("timeout", [0, None, 1e300, math.inf])
def test_the_limit_of_time_can_be_lifted(zoo, timeout):
    assert len(zoo.query("SELECT * FROM models", timeout=timeout)) == 6


@pytest.mark.parametrize("timeout", [-1, math.nan, -math.inf])
def test_a_limit_that_is_no_time_is_refused(zoo, timeout):
    with pytest.raises(InvalidInput, match="write seconds, or 0 for no limit"):
        zoo.query("SELECT 1", timeout=timeout)


def test_what_reads_the_answer_has_its_time(zoo):
    """A pager, say: only DuckDB's own time counts."""
    _, batches = Database(zoo.path, timeout=1).batches("SELECT * FROM range(30000)")
    rows = 0
    for batch in batches:
        time.sleep(0.5)
        rows += len(batch)
    assert rows == 30_000


def test_ctrl_c_ends_a_query_at_once(zoo):
    asked = Database(zoo.path, timeout=None)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 -- not before it is waited for
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        asked.rows(ENDLESS)
    assert asked.rows("SELECT count(*) FROM models")[1] == [(6,)]


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(query_limits, "MEMORY", "50MB")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT range % 99999989 AS r, count(*) FROM range(1000000000) GROUP BY r",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT * FROM range(1000000000) ORDER BY hash(range)",
    ],
)
def test_a_query_that_needs_too_much_memory_is_refused_in_one_line(zoo, small_memory, sql):
    with pytest.raises(QueryTooLarge, match=r"needs more than the 0\.0 GB of memory") as refused:
        Database(zoo.path, timeout=None).rows(sql)
    assert "\n" not in str(refused.value)
    assert len(zoo.query("SELECT * FROM models")) == 6


def test_an_answer_that_is_too_large_for_python_is_refused(zoo, small_memory):
    asked = Database(zoo.path, timeout=None)
    for ask in (asked.rows, asked.frame):
        with pytest.raises(QueryTooLarge, match=r"the answer takes more than .* MB of memory"):
            ask(WITHOUT_END)
    for read in (asked.batches, asked.arrow):  # piece by piece it goes on and on
        pieces = read(WITHOUT_END)[1]
        assert sum(len(next(pieces)) for _ in range(30)) >= 300_000


def test_lists_are_weighed_before_they_come_to_python(zoo, monkeypatch):
    monkeypatch.setattr(query_limits, "NESTED_BYTES", 100_000)
    asked = Database(zoo.path)
    for long in ("range(100000)", "{'a': range(100000)}", "map {1: range(100000)}"):
        with pytest.raises(QueryTooLarge, match=r"ask for shorter ones.*unnest\(\)"):
            asked.rows(f"SELECT {long}")
    assert asked.rows("SELECT [1] AS a, 2 AS a, {'x': [3]} AS b; -- a comment") == (
        ["a", "a", "b"],
        [([1], 2, {"x": [3]})],
    )
    short = asked.rows("SELECT [range] FROM range(5000)")[1]
    assert short == [([number],) for number in range(5000)]
    pivot = asked.rows("PIVOT models ON stage USING list(seed) GROUP BY last_epoch")
    assert pivot[0] == ["last_epoch", "finetune", "pretrain"]
    assert len(pivot[1]) == 2


def test_a_frame_of_many_pieces_is_that_of_one(zoo, monkeypatch):
    monkeypatch.setattr(query_module, "_FRAME_VECTORS", 1)
    asked = Database(zoo.path)
    late = "CASE WHEN range BETWEEN 2000 AND 5000 THEN {} END"
    values = ("range", "range % 2 = 0", "range::VARCHAR", "range::DOUBLE", "[range]")
    columns = ", ".join(f"{each} AS c{n}, {late.format(each)}" for n, each in enumerate(values))
    sql = f"SELECT {columns}, date '2020-01-01' + range::INT, NULL FROM range(8000)"
    pd.testing.assert_frame_equal(asked.frame(sql), asked._duckdb.execute(sql).df())
    none = f"FROM ({sql}) WHERE c0 < 0"
    pd.testing.assert_frame_equal(asked.frame(none), asked._duckdb.execute(none).df())


@pytest.mark.parametrize(
    ("sql", "what"), [("SELECT '\udcff'", "the byte 0xff"), ("SELECT '\ud800'", "half a letter")]
)
def test_text_that_is_no_unicode_is_a_mistake_in_one_line(zoo, sql, what):
    asked = Database(zoo.path)
    for ask in (asked.rows, asked.frame, asked.arrow):
        with pytest.raises(InvalidInput, match=f"the SQL has {what}, which is no valid Unicode"):
            ask(sql)
    with pytest.raises(InvalidInput, match=what):
        listing(zoo.path, where=f"stage = {sql[7:]}")
    with pytest.raises(UnknownName):
        listing(zoo.path, sort=[sql])


def test_bytes_that_are_no_text_are_bytes(zoo):
    assert Database(zoo.path).rows(r"SELECT '\xff\x00'::BLOB")[1] == [(b"\xff\0",)]
    with pytest.raises(InvalidInput, match="invalid UTF8"):
        zoo.query(r"SELECT decode('\xff'::BLOB)")


@pytest.mark.parametrize("refuse", [b"\xff".decode, Path("/").read_bytes])
def test_what_the_reader_of_an_answer_raises_is_a_line(zoo, refuse):
    asked = Database(zoo.path)
    with pytest.raises(InvalidInput):
        asked._ask(asked._begin(), refuse)


# Listing


def test_a_listing_has_the_factors_that_differ_and_scores_before_and_after(zoo):
    page = listing(zoo.path)
    assert (page.matching, page.total) == (6, 6)
    assert set(page.rows[0]) == {
        *("model", "stage", "parent", "operator", "ingredients", "lr", "seed", "epochs"),
        *("before", "after", "score", "status", "tags", "note"),
    }
    for row in page.rows:
        epochs = zoo.epochs(row["model"])["test_accuracy"]
        assert (row["before"], row["after"]) == (epochs.iloc[0], epochs.iloc[-1])
        assert row["epochs"] == len(epochs) - 1
    assert [row["stage"] for row in page.rows] == ["pretrain"] * 2 + ["finetune"] * 4


@pytest.mark.parametrize(
    ("where", "same"),
    [
        ("lr < 0.005 and stage = 'finetune'", "`optimizer.lr` < 0.005 and stage == 'finetune'"),
        ("optimizer.lr < 0.005", "`optimizer.lr` < 0.005"),
        ('"optimizer.lr" < 0.005 -- a comment', "`optimizer.lr` < 0.005"),
        ("after > 0.65 or seed = 2", "test_accuracy > 0.65 or seed == 2"),
        ("parent IS NULL", "stage == 'pretrain'"),
        ("", "stage != ''"),
    ],
)
def test_a_condition_knows_headings_and_columns(shared, where, same):
    expected = shared.models().query(same)
    page = listing(shared.path, where=where)
    assert {row["model"] for row in page.rows} == set(expected["id"])
    assert (page.matching, page.total) == (len(expected), 6)


def test_a_condition_may_ask_about_other_models(zoo):
    models = zoo.models()
    parent = models[(models["seed"] == 1) & (models["stage"] == "pretrain")]["id"].iloc[0]
    where = "parent IN (SELECT id FROM models WHERE seed = 1)"
    assert {row["parent"] for row in listing(zoo.path, where=where).rows} == {parent}


def test_models_are_sorted_and_limited(zoo):
    models = zoo.models().sort_values("test_accuracy", ascending=False)
    page = listing(zoo.path, sort=["-after"], limit=4)
    assert [row["model"] for row in page.rows] == list(models["id"][:4])
    assert page.matching == 6
    rows = listing(zoo.path, sort=["Stage", " -optimizer.lr"]).rows
    assert [row["stage"] for row in rows] == sorted(models["stage"])
    assert [row["lr"] for row in rows[:4]] == [0.01, 0.01, 0.001, 0.001]


def test_what_has_no_value_is_sorted_last_either_way(zoo):
    write_epochs(zoo, zoo.ids()[0], [])
    for sort in ("after", "-after"):
        assert listing(zoo.path, sort=[sort]).rows[-1]["model"] == zoo.ids()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "lr <"}, "the condition ends too early, or is no SQL: lr <"),
        ({"where": "lrr < 1"}, "unknown column 'lrr'; did you mean 'lr'"),
        ({"where": "optimizer_lr < 1"}, "did you mean 'optimizer.lr'"),
        ({"where": "afterr < 1"}, "did you mean 'after'"),
        ({"where": "1=1); DROP TABLE models; SELECT (1"}, "3 statements"),
        ({"sort": ["-lrr"]}, "unknown column 'lrr'; did you mean 'lr'"),
        ({"sort": ["lr DESC; DROP TABLE models"]}, "unknown column"),
    ],
)
def test_an_unknown_column_is_told_with_the_nearest(shared, options, message):
    with pytest.raises(InvalidInput) as told:
        listing(shared.path, **options)
    assert message in str(told.value)
