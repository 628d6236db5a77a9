"""Names in SQL: factors in short, ids by their beginning, and what an epoch's rate is called."""

import json
import shutil

import pytest

from vitarium import Zoo
from vitarium.core import files
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.zoo import _index_tables
from vitarium.zoo._sql_names import hyphenated, short_names, with_column, with_full_ids, with_quotes
from vitarium.zoo.listing import listing
from vitarium.zoo.query import UnknownColumn

IDS = ["2a14103d5e6f", "2a99103d5e6f", "77b0aaaaaaaa"]


@pytest.fixture(scope="module")
def zoo(written_once, tmp_path_factory):
    return Zoo.open(shutil.copytree(written_once, tmp_path_factory.mktemp("names") / "zoo"))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("parent = '2a14103d'", "parent = '2a14103d5e6f'"),
        ("m.parent <> '2a14'", "m.parent <> '2a14103d5e6f'"),
        ("\"id\"='77b0'", "\"id\"='77b0aaaaaaaa'"),
        ("'77' == c.id", "'77b0aaaaaaaa' == c.id"),
        ("parent IN ('2a14', '77b0')", "parent IN ('2a14103d5e6f', '77b0aaaaaaaa')"),
        ("model not in -- of '2a14'\n('2a99')", "model not in -- of '2a14'\n('2a99103d5e6f')"),
        ("OTHER = '2a99' OR stage = '2a99'", "OTHER = '2a99103d5e6f' OR stage = '2a99'"),
    ],
)
def test_an_id_may_be_compared_by_its_beginning(sql, expected):
    assert with_full_ids(sql, lambda: IDS) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "parent = '2a14103d5e6f'",
        "parent = 'ffff'",
        "parent LIKE '2a14'",
        "left(parent, 8) = '2a14103d'",
        "'2a14103d' = left(parent, 8)",
        "parent = '2a14' || '103d5e6f'",
        "parent = 'it''s 2a14'",
        "name = '2a14'",
        "name IN ('2a14')",
        "x IN (SELECT '2a14')",
        "'parent = ' || '2a14'",
        "'2a14'",
        "/* parent = '2a14' */ true",
        "FROM (SELECT left(id, 8) AS model FROM models) WHERE model = '2a14103d'",
    ],
)
def test_nothing_else_is_taken_for_the_beginning_of_an_id(sql):
    assert with_full_ids(sql, lambda: IDS) == sql


def test_the_beginning_of_several_ids_is_refused_with_the_ids():
    with pytest.raises(InvalidInput, match="'2a' is the beginning of 2a14103d5e6f, 2a99103d5e6f"):
        with_full_ids("id = '2a'", lambda: IDS)


def test_conditions_and_queries_take_ids_as_they_are_listed(zoo):
    models = zoo.models()
    parent = models["parent"].dropna().iloc[0]
    children = sorted(models[models["parent"] == parent]["id"])
    where = f"parent = '{parent[:8]}'"
    assert sorted(row["model"] for row in listing(zoo.path, where=where).rows) == children
    assert sorted(zoo.query(f"SELECT id FROM models WHERE {where}")["id"]) == children
    without = listing(zoo.path, where=f"model NOT IN ('{children[0][:8]}')").rows
    assert {row["model"] for row in without} == set(zoo.ids()) - {children[0]}


def test_a_last_part_is_short_for_the_one_column_that_ends_so():
    columns = ["id", "seed", "optimizer.lr", "head.seed", "data.mean", "objective.mean", "loss"]
    assert short_names(columns, ["LR"]) == {}
    assert short_names([*columns, "objective.loss"]) == {"lr": "optimizer.lr"}


def test_of_an_ambiguous_last_part_the_columns_are_named():
    error = UnknownColumn("lr", ["seed", "optimizer.base.lr", "optimizer.lr"])
    assert str(error) == "unknown column 'lr'; did you mean 'optimizer.lr' or 'optimizer.base.lr'?"


def test_a_short_name_is_replaced_wherever_it_stands_for_a_column():
    sql = "SELECT m.lr, 'lr' /* lr */, \"lr\" FROM models m ORDER BY LR"
    expected = 'SELECT m."o.lr", \'lr\' /* lr */, "o.lr" FROM models m ORDER BY "o.lr"'
    assert with_column(sql, "lr", "o.lr") == expected


def test_quotes_are_set_around_columns_with_dots_alone():
    sql = "SELECT m.optimizer.lr, optimizer.LR, m.\"optimizer.lr\", 'optimizer.lr', m.id, 1.5"
    expected = (
        'SELECT m."optimizer.lr", "optimizer.LR", m."optimizer.lr", \'optimizer.lr\', m.id, 1.5'
    )
    assert with_quotes(sql, ["id", "optimizer.lr"]) == expected


def test_lr_is_the_recipes(zoo):
    models = zoo.models()
    rates = sorted(models["optimizer.lr"])
    assert "lr" not in models.columns
    assert sorted(zoo.query("SELECT lr FROM models").iloc[:, 0]) == rates
    assert sorted(zoo.query("SELECT m.lr FROM models AS m").iloc[:, 0]) == rates
    low = listing(zoo.path, where="lr < 0.005").rows
    assert {r["model"] for r in low} == set(models[models["optimizer.lr"] < 0.005]["id"])
    counts = zoo.query("SELECT lr, count(*) AS n FROM models GROUP BY lr ORDER BY lr")
    assert counts["n"].tolist() == [rates.count(rate) for rate in sorted(set(rates))]


def test_a_column_that_a_query_calls_lr_is_that_column(zoo):
    answer = zoo.query("SELECT max(epoch_lr) AS lr FROM epochs GROUP BY model ORDER BY lr LIMIT 1")
    assert answer.to_dict("list") == {"lr": [0.5]}


def test_a_factor_in_which_no_model_differs_has_a_short_name_too(zoo):
    assert len(listing(zoo.path, where="weight_decay >= 0", sort=["-weight_decay"]).rows) == 6


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learning_rate", "optimizer.lr"),
        ("accuracy", "test_accuracy"),
        ("lrr", "lr"),
    ],
)
def test_another_word_for_a_column_is_answered_with_the_column(zoo, name, meant):
    for ask in (
        lambda: zoo.query(f"SELECT {name} FROM models"),
        lambda: listing(zoo.path, where=f"{name} < 1"),
        lambda: listing(zoo.path, sort=[name]),
    ):
        with pytest.raises(UnknownName) as error:
            ask()
        assert f"unknown column '{name}'; did you mean '{meant}'?" in str(error.value)


def test_a_sort_speaks_of_columns_and_not_of_quotes(zoo):
    with pytest.raises(UnknownName) as error:
        listing(zoo.path, sort=["nope"])
    assert "quotes" not in str(error.value)


def test_the_rate_of_an_epoch_is_read_where_an_earlier_version_called_it_lr(written_zoo):
    id = written_zoo.ids()[0]
    path = written_zoo.path / "models" / id / "epochs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
    rates = [line["metrics"]["epoch_lr"] for line in lines]
    for line in lines:
        line["metrics"]["lr"] = line["metrics"].pop("epoch_lr")
    files.write_lines(path, lines)
    assert written_zoo.epochs(id)["epoch_lr"].tolist() == rates
    request = f"SELECT epoch_lr FROM epochs WHERE model = '{id}' ORDER BY epoch"
    assert written_zoo.query(request)["epoch_lr"].tolist() == rates
    row = written_zoo.models().set_index("id").loc[id]
    assert row["epoch_lr"] == rates[-1]
    assert _index_tables.disagreements(written_zoo.path) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("optimizer-lr > 1", {"optimizer-lr": "optimizer.lr"}),
        ("2 - Test-Accuracy > 1", {"Test-Accuracy": "test_accuracy"}),
        ("stage = 'optimizer-lr' AND a - b > 'c'", {}),
        ("optimizer - lr > 1", {}),
    ],
)
def test_a_name_with_hyphens_may_be_that_of_a_column(sql, expected):
    assert hyphenated(sql, ["optimizer.lr", "test_accuracy"]) == expected


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT optimizer-lr FROM models", "'optimizer-lr'; did you mean 'optimizer.lr'\\?$"),
        ("SELECT test-accuracy FROM models", "'test-accuracy'; did you mean 'test_accuracy'\\?$"),
        ("SELECT round(stage) FROM models", "explicit type casts\\.$"),
    ],
)
def test_what_duckdb_cannot_compute_is_one_short_line(zoo, sql, message):
    with pytest.raises(InvalidInput, match=message) as error:
        zoo.query(sql)
    assert "Candidate" not in str(error.value)
