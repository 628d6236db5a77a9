"""`vitarium ls` on terminals of any width."""

import csv
import io
import json

import pytest

from vitarium.cli import _tables
from vitarium.cli._models import for_people, print_models, titled
from vitarium.cli.zoo import _parent
from vitarium.core.terminal import Terminal

ROW = {
    "model": "2a14103d09e8",
    "stage": "finetune",
    "parent": "77b0aaaaaaaa",
    "operator": None,
    "ingredients": None,
    "head": "mlp",
    "lr": 0.003,
    "seed": 0,
    "epochs": 8,
    "before": 0.1034567,
    "after": 0.9871234,
    "score": "accuracy",
    "status": "finished",
}


def rows(count=12, **changes):
    factors = [
        {"lr": 10.0 ** -(n % 4), "head": ("mlp", "linear")[n % 2], "seed": n // 4}
        for n in range(count)
    ]
    return [
        {**ROW, **values, "model": f"{n:012x}", "after": n / 100, "before": n / 1000, **changes}
        for n, values in enumerate(factors)
    ]


@pytest.fixture
def printed(capsys, monkeypatch):
    def show(listed, width=None, **options):
        if width:
            monkeypatch.setenv("COLUMNS", str(width))
        print_models(listed, title="zoo", **options)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_line_of_the_table_is_longer_than_the_terminal_is_wide(printed, width):
    table, *_ = printed(rows(), width).split("\nthe same in all: ")
    assert all(len(line) <= width for line in table.splitlines())
    for row in rows():
        assert f"\n{row['model'][:8]} " in table
        assert f"{row['after']:.4g}" in table


def test_columns_in_which_all_are_alike_are_named_once(printed):
    out = printed(rows(), 200)
    heading = out.splitlines()[2].split()
    assert heading == ["model", "head", "lr", "seed", "before", "after"]
    assert "the same in all: stage finetune, parent 77b0aaaa, epochs 8\n" in out
    assert "not shown" not in out


def test_what_a_narrow_terminal_leaves_out_is_named_the_least_telling_first(printed):
    out = printed(rows(), 34)
    assert out.splitlines()[2].split() == ["model", "head", "lr", "after"]
    assert out.endswith("not shown: seed, before; --columns\nall shows all\n")


def test_the_kind_of_score_is_a_column_where_it_differs_and_named_where_it_is_not_usual(printed):
    mixed = rows()
    mixed[0]["score"] = "k-NN accuracy"
    assert "score" in printed(mixed, 200).splitlines()[2]
    assert "k-NN" in printed(mixed, 200)
    assert "score k-NN" in printed(rows(score="k-NN accuracy"), 200).splitlines()[-1]
    assert "score" not in printed(rows(), 200)


def test_models_without_a_score_do_not_make_it_a_column(printed):
    merged = rows()
    merged[0] |= {"score": None, "after": None}
    assert "score" not in printed(merged, 200)


def test_every_column_can_be_asked_for(printed):
    out = printed(rows(), 40, every_column=True)
    used = [name for name in ROW if name not in ("operator", "ingredients")]
    assert out.splitlines()[2].split() == used
    assert "the same" not in out


def test_one_model_has_all_of_its_columns(printed):
    out = printed(rows(1), 200)
    assert "stage" in out.splitlines()[2]
    assert "the same" not in out


def test_ingredients_are_ids_that_can_be_typed():
    row = {**ROW, "ingredients": ["2a14103d09e8@8", "77b0aaaaaaaa@8", "0123456789ab@8"]}
    assert for_people(row)["ingredients"] == "2a14103d@8 77b0aaaa@8 and 1 more"
    assert for_people(row)["model"] == "2a14103d"
    assert (for_people(row)["before"], for_people(row)["after"]) == (0.103, 0.987)


def test_ls_prints_the_columns_that_are_named(vitarium, written_zoo):
    models = written_zoo.models()
    out = vitarium("ls", written_zoo.path, "--columns", "model,lr,test_accuracy", "--csv")[1]
    listed = list(csv.DictReader(io.StringIO(out)))
    assert list(listed[0]) == ["model", "lr", "test_accuracy"]
    assert {r["model"]: float(r["lr"]) for r in listed} == dict(
        zip(models["id"], models["optimizer.lr"], strict=True)
    )
    by_json = json.loads(vitarium("ls", written_zoo.path, "--columns", "lr", "--json")[1])
    assert sorted(row["lr"] for row in by_json) == sorted(models["optimizer.lr"])
    assert list(by_json[0]) == ["lr"]
    out = vitarium("ls", written_zoo.path, "--columns", "lr,status")[1]
    assert out.splitlines()[2].split() == ["lr", "status"]
    status, _, err = vitarium("ls", written_zoo.path, "--columns", "lrr")
    assert (status, err) == (2, "error: unknown column 'lrr'; did you mean 'lr'?\n")


def test_ls_of_one_model_is_answered_with_show(vitarium, written_zoo, monkeypatch):
    monkeypatch.chdir(written_zoo.path.parent)
    status, _, err = vitarium("ls", written_zoo.path.name, "d704")
    assert status == 2
    assert f"vitarium show {written_zoo.path.name} d704" in err
    status, _, err = vitarium("show", written_zoo.path.name, "d704", "3f2a")
    assert status == 2
    assert "Example: vitarium show" in err


def test_a_title_speaks_of_accuracies_where_there_are_some():
    assert titled("zoo", rows()) == "zoo; accuracy on test images before and after training"
    assert titled("zoo", rows(before=None, after=None)) == "zoo"


def test_ls_as_csv_is_ls_as_json(vitarium, written_zoo):
    by_csv = list(csv.DictReader(io.StringIO(vitarium("ls", written_zoo.path, "--csv")[1])))
    by_json = json.loads(vitarium("ls", written_zoo.path, "--json")[1])
    assert [list(row) for row in by_csv] == [list(row) for row in by_json]
    for first, second in zip(by_csv, by_json, strict=True):
        assert first["id"] == second["id"]
        assert float(first["optimizer.lr"]) == second["optimizer.lr"]
    status, _, err = vitarium("ls", written_zoo.path, "--csv", "--json")
    assert status == 2
    assert "choose one of --json and --csv" in err


def test_show_as_csv_is_a_row_per_epoch(vitarium, written_zoo):
    id = written_zoo.ids()[0]
    listed = list(csv.DictReader(io.StringIO(vitarium("show", written_zoo.path, id, "--csv")[1])))
    epochs = written_zoo.epochs(id)
    assert [int(row["epoch"]) for row in listed] == epochs["epoch"].tolist()
    assert [float(row["epoch_lr"]) for row in listed] == epochs["epoch_lr"].tolist()


def test_show_says_that_no_parent_of_an_imported_model_is_known():
    parentless = {"parent": None, "parent_epoch": None, "operator": None}
    assert _parent({**parentless, "imported": {}}) == "none: not known"
    assert _parent({**parentless, "recipe": {}}) == "none: from scratch"
    merged = {**parentless, "recipe": {}, "operator": {"name": "ties"}}
    assert "ingredients" in _parent(merged)
    assert _parent({**merged, "parent": "2a14", "parent_epoch": 3}) == "2a14 after epoch 3"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_on_a_terminal_no_id_and_no_number_is_broken(monkeypatch, capsys, width):
    def terminal(**settings):
        return Terminal(force_terminal=True, color_system=None, width=width, **settings)

    monkeypatch.setattr(_tables, "Terminal", terminal)
    text = "a text that is much longer than any terminal of this test is wide, at its widest"
    row = {"model": "2a14103d09e8", "score": 0.123456, "count": 1234567890, "what": text}
    other = {"model": "77b0aaaaaaaa", "score": 0.5, "count": 1, "what": "short"}
    _tables.print_rows([row, other], title="Table")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    shown = {"2a14103d09e8": 20, "77b0aaaaaaaa": 20, "0.1235": 20, "1234567890": 40, "a text": 80}
    for unbroken, least_width in shown.items():
        assert (unbroken in out.replace("\n", "|")) == (width >= least_width)


def test_csv_has_lists_as_json_and_nothing_for_what_is_missing():
    rows = [["a", "b"], [[1, 2], {"x": None}], [True, None], ["=cmd()", 0.5]]
    assert _tables.csv_text(rows) == ('a,b\n"[1, 2]","{""x"": null}"\ntrue,\n\'=cmd(),0.5\n')
