"""`vitarium query`, and the choices of `vitarium ls`."""

import csv
import io
import json
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from vitarium.cli.tables import lines

BY_STAGE = "SELECT stage, count(*) AS n, max(test_accuracy) AS best FROM models GROUP BY stage"


@pytest.fixture
def zoo(written_zoo):
    return written_zoo


@pytest.fixture
def best(zoo):
    groups = zoo.models().groupby("stage")["test_accuracy"]
    return {stage: (len(values), values.max()) for stage, values in groups}


def test_an_answer_is_a_table_csv_or_json(vitarium, zoo, best):
    status, out, _ = vitarium("query", zoo.path, BY_STAGE)
    assert status == 0
    words = [line.split() for line in out.splitlines()]
    assert words[0] == ["stage", "n", "best"]
    assert sorted(words[2:]) == [[s, str(n), f"{top:.4g}"] for s, (n, top) in sorted(best.items())]
    out = vitarium("query", zoo.path, BY_STAGE, "--format", "csv")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {r["stage"]: (int(r["n"]), float(r["best"])) for r in rows} == best
    for option in (["--json"], ["--format", "json"]):
        rows = json.loads(vitarium("query", zoo.path, BY_STAGE, *option)[1])
        assert {r["stage"]: (r["n"], r["best"]) for r in rows} == best


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_an_answer_goes_into_a_file_as_its_ending_says(vitarium, zoo, best, tmp_path, ending):
    file = tmp_path / f"answer.{ending}"
    status, out, err = vitarium("query", zoo.path, BY_STAGE, "--output", file)
    assert (status, out) == (0, ""), err
    table = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[ending](file)
    assert {r.stage: (r.n, pytest.approx(r.best)) for r in table.itertuples()} == best


def test_parquet_keeps_types_and_what_is_missing(vitarium, zoo, tmp_path):
    file = tmp_path / "x.pq"
    asked = "SELECT kept, epoch, seconds FROM epochs"
    assert vitarium("query", zoo.path, asked, "--output", file, "--format", "parquet")[0] == 0
    table = pq.read_table(file)
    assert [str(field.type) for field in table.schema] == ["bool", "int64", "double"]
    assert table["seconds"].null_count == 6


def test_values_of_every_kind_are_written(vitarium, zoo):
    asked = "SELECT NULL a, true b, 1.5 c, date '2020-01-02' d, [1, 2] e, 'nan'::DOUBLE f, 7 a"
    found = json.loads(vitarium("query", zoo.path, asked, "--json")[1])
    assert found == [
        {"a": None, "b": True, "c": 1.5, "d": "2020-01-02", "e": [1, 2], "f": None, "a_1": 7}
    ]
    out = vitarium("query", zoo.path, asked, "--format", "csv")[1]
    assert out.splitlines() == ["a,b,c,d,e,f,a_1", ',true,1.5,2020-01-02,"[1, 2]",nan,7']


def test_without_sql_the_tables_and_their_columns_are_told(vitarium, zoo):
    status, out, _ = vitarium("query", zoo.path)
    assert status == 0
    for said in ("models: 6 rows", "epochs: 14 rows", "records: 0 rows", "For example:"):
        assert said in out
    line = next(line for line in out.splitlines() if line.startswith("optimizer.lr"))
    assert line.split()[1] == "DOUBLE"
    told = json.loads(vitarium("query", zoo.path, "--json")[1])
    assert told["models"]["rows"] == 6
    columns = {each["column"]: each["type"] for each in told["epochs"]["columns"]}
    assert columns["kept"] == "BOOLEAN"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "COPY models TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "DELETE FROM models",
        "SELECT * FROM nothing",
        "SELECT nothing FROM models",
        "SELEC 1",
    ],
)
def test_what_cannot_be_asked_is_one_line_and_status_2(vitarium, zoo, sql):
    status, out, err = vitarium("query", zoo.path, sql)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "parquet"], "name a file for it with --output"),
        (["--output", "x.xlsx"], "x.xlsx can be csv, json, parquet"),
        (["--output", "x.csv", "--format", "table"], "x.csv can be csv, json, parquet"),
        (["--output", "/proc/x/y.csv"], "cannot write /proc/x/y.csv"),
    ],
)
def test_a_place_that_does_not_fit_is_one_line_and_status_2(vitarium, zoo, options, said):
    status, _, err = vitarium("query", zoo.path, "SELECT 1", *options)
    assert status == 2
    assert said in err


def test_ls_chooses_sorts_and_limits(vitarium, zoo):
    status, out, _ = vitarium(
        *("ls", zoo.path, "--where", "lr > 0.001 and stage = 'finetune'"),
        *("--sort", "-after", "--limit", 1),
    )
    assert status == 0
    assert "2 of 6 models" in out
    assert "… 1 more" in out
    models = zoo.models()
    chosen = models[(models["optimizer.lr"] > 0.001) & (models["stage"] == "finetune")]
    first = chosen.sort_values("test_accuracy").iloc[-1]
    assert first["id"][:8] in out
    rows = json.loads(vitarium("ls", zoo.path, "--json", "--sort", "-after", "--limit", 2)[1])
    expected = models.sort_values("test_accuracy", ascending=False)["id"][:2]
    assert [row["id"] for row in rows] == list(expected)


def test_ls_says_so_where_no_model_fulfils_the_condition(vitarium, zoo):
    status, out, _ = vitarium("ls", zoo.path, "--where", "lr > 5")
    assert status == 0
    assert "0 of 6 models" in out


@pytest.mark.parametrize("options", [["--where", "lrr < 1"], ["--sort", "-lrr"]])
def test_ls_names_the_nearest_column(vitarium, zoo, options):
    status, _, err = vitarium("ls", zoo.path, *options)
    assert status == 2
    assert "unknown column 'lrr'; did you mean 'lr'?" in err


@pytest.mark.parametrize("command", ["ls", "query"])
def test_what_is_heavy_is_not_imported_to_list_a_zoo(zoo, command):
    zoo.models()  # the index is up to date
    code = (
        "import sys; from vitarium.cli import app\n"
        f"app([{command!r}, {str(zoo.path)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'timm', 'pandas', 'pyarrow', 'numpy', 'safetensors', 'sklearn'}\n"
        "print('IMPORTED', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "IMPORTED"


def test_a_table_that_is_not_for_a_terminal_has_columns_of_fixed_width():
    rows = [{"name": "模型", "value": 1}, {"name": "two\nlines\x1b[0m", "value": None}]
    assert list(lines(rows, "Title")) == [
        "Title",
        "",
        "name              value",
        "────────────────  ─────",
        "模型                  1",
        r"two lines\x1b[0m",
    ]
