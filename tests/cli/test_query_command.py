"""`vitarium query`, and the choices of `vitarium ls`."""

import csv
import io
import json
import signal
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from vitarium.cli._tables import print_rows
from vitarium.zoo import _query_limits as query_limits

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
    for message in ("models: 6 rows", "epochs: 14 rows", "records: 0 rows", "For example:"):
        assert message in out
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
    ("options", "message"),
    [
        (["--format", "parquet"], "name a file for it with --output"),
        (["--output", "x.xlsx"], "x.xlsx can be csv, json, parquet"),
        (["--output", "x.csv", "--format", "table"], "x.csv can be csv, json, parquet"),
        (["--output", "/proc/x/y.csv"], "cannot write /proc/x/y.csv"),
    ],
)
def test_a_place_that_does_not_fit_is_one_line_and_status_2(vitarium, zoo, options, message):
    status, _, err = vitarium("query", zoo.path, "SELECT 1", *options)
    assert status == 2
    assert message in err


def test_without_a_select_no_file_is_written(vitarium, zoo, tmp_path):
    status, out, err = vitarium("query", zoo.path, "--output", tmp_path / "models.csv")
    assert (status, out) == (2, "")
    assert "without a SELECT" in err
    assert not list(tmp_path.glob("models.csv"))


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


ENDLESS = "SELECT count(*) FROM range(1000000000000) AS a, range(1000000000000) AS b"
NOT_INTERRUPTIBLE = "SELECT levenshtein(repeat('ab', 300000), repeat('ba', 300000))"


def test_a_query_that_takes_too_long_is_one_line_and_status_2(vitarium, zoo):
    status, out, err = vitarium("query", zoo.path, ENDLESS, "--timeout", "0.05")
    assert (status, out) == (2, "")
    assert err.startswith("error: the query took more than 0.05 s and was stopped")
    assert len(err.splitlines()) == 1
    assert vitarium("query", zoo.path, "SELECT 1", "--timeout", "0")[0] == 0
    for wrong in ("-1", "nan"):
        status, _, err = vitarium("query", zoo.path, "SELECT 1", "--timeout", wrong)
        assert status == 2
        assert "write seconds, or 0 for no limit" in err


STARTED = """
import sys
from vitarium import cli
from vitarium.zoo import _query_limits as query_limits
from vitarium.zoo.query import Database
query_limits._PATIENCE = 0.3
ask = Database._one_question
def asked(self, sql):
    print("asked", flush=True)
    return ask(self, sql)
Database._one_question = asked
cli.main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", ENDLESS, "--timeout", "0"],
        ["query", NOT_INTERRUPTIBLE],
        ["ls", "--where", f"({ENDLESS}) > 0"],
    ],
)
def test_ctrl_c_ends_a_query_with_a_word_and_status_130(zoo, arguments):
    zoo.models()  # with an index, it starts in no time
    command, *rest = arguments
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, command, str(zoo.path), *rest],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err, out.replace("asked\n", "")) == (130, "interrupted\n", "")


def test_what_does_not_let_itself_be_interrupted_ends_with_the_process(zoo):
    zoo.models()
    done = subprocess.run(
        [sys.executable, "-c", STARTED, "query", str(zoo.path), NOT_INTERRUPTIBLE, "--timeout", "0.1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: the query took more than 0.1 s and was stopped")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def small_memory(monkeypatch):
    monkeypatch.setattr(query_limits, "MEMORY", "50MB")


def test_an_answer_of_any_length_is_written_piece_by_piece(vitarium, zoo, tmp_path, small_memory):
    """Of several pieces: of 122,880 rows in Parquet, of 10,000 in text."""

    def answer(rows):
        return f"SELECT range AS n, 'x' || range AS t FROM range({rows})"

    status, out, err = vitarium("query", zoo.path, answer(123_000))
    assert (status, out) == (2, "")
    assert "--output FILE.csv" in err
    assert len(err.splitlines()) == 1
    for ending, read, rows in (
        ("csv", pd.read_csv, 21_000),
        ("json", pd.read_json, 21_000),
        ("parquet", pd.read_parquet, 123_000),
    ):
        file = tmp_path / f"answer.{ending}"
        assert vitarium("query", zoo.path, answer(rows), "--output", file)[0] == 0
        table = read(file)
        assert table["n"].tolist() == list(range(rows))
        assert table["t"].iloc[-1] == f"x{rows - 1}"
    for form in ("csv", "json"):
        out = vitarium("query", zoo.path, answer(21_000), "--format", form)[1]
        assert out == (tmp_path / f"answer.{form}").read_text()
    none = f"FROM ({answer(1)}) WHERE n < 0"
    assert vitarium("query", zoo.path, none, "--json")[1] == "[]\n"


def test_a_file_that_is_not_finished_is_not_there(vitarium, zoo, tmp_path):
    for ending in ("csv", "json", "parquet"):
        file = tmp_path / f"answer.{ending}"
        asked = "SELECT * FROM range(1000000000000)"
        assert vitarium("query", zoo.path, asked, "--timeout", "0.05", "--output", file)[0] == 2
    assert list(tmp_path.glob("*answer*")) == []


@pytest.mark.parametrize("command", [["query", "SELECT '\udcff'"], ["ls", "--where", "'\udcff'"]])
def test_bytes_that_are_no_text_are_one_line_and_status_2(vitarium, zoo, command):
    status, out, err = vitarium(command[0], zoo.path, *command[1:])
    assert (status, out) == (2, "")
    assert err == "error: the SQL has the byte 0xff, which is no valid Unicode; write it in UTF-8\n"


@pytest.mark.parametrize("command", [["ls"], ["query", "SELECT id FROM models"]])
def test_a_damaged_index_is_a_note_of_one_line(vitarium, zoo, command):
    expected = vitarium(command[0], zoo.path, *command[1:])
    path = zoo.path / "index" / "tables.parquet"
    whole = bytearray(path.read_bytes())
    whole[whole.rindex(b"vitarium")] ^= 1
    path.write_bytes(whole)
    status, out, err = vitarium(command[0], zoo.path, *command[1:])
    assert (status, out) == expected[:2]
    assert err == f"note: the index of {zoo.path} was damaged and has been rebuilt\n"
    assert vitarium(command[0], zoo.path, *command[1:]) == expected


def test_a_table_that_is_not_for_a_terminal_has_columns_of_fixed_width(capsys):
    rows = [{"name": "模型", "value": 1}, {"name": "two\nlines\x1b[0m", "value": None}]
    print_rows(rows, title="Title")
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "",
        "name              value",
        "────────────────  ─────",
        "模型                  1",
        r"two lines\x1b[0m",
    ]


def test_a_column_that_parquet_does_not_have_is_an_error_in_a_line(vitarium, zoo, tmp_path):
    out = tmp_path / "answer.parquet"
    status, _, err = vitarium("query", zoo.path, "SELECT INTERVAL 1 MONTH", "--output", out)
    assert status == 2
    assert "cast it in the SQL" in err
    assert not out.exists()


@pytest.mark.parametrize("epoch", ["²", "9" * 5000])
def test_an_epoch_that_int_refuses_is_an_error_in_a_line(vitarium, zoo, tmp_path, epoch):
    model = f"{zoo.ids()[0]}@{epoch}"
    arguments = ("--exporter", "safetensors", "--out", tmp_path / "out", model)
    status, _, err = vitarium("export", zoo.path, *arguments)
    assert status == 2
    assert "write an epoch as a number" in err
    assert vitarium("measure", zoo.path, "weight_norm", "--epochs", epoch)[0] == 2
