"""Tables of who descends from whom: what they may say, and how their faults are named."""

import re
import sys
from pathlib import Path

import pytest

from vitarium.core.errors import InvalidInput
from vitarium.lineage.files.parent_tables import find_parent_table
from vitarium.lineage.ground_truth import true_parents

FILES = ["a.pt", "b.safetensors", "deep/c.pt"]


def files(folder):
    return {Path(name).with_suffix("").as_posix(): folder / name for name in FILES}


def truth(folder, **tables):
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    paths_by_name = files(folder)
    table = find_parent_table(folder, paths_by_name, list(paths_by_name))
    if table is None:
        return None
    paths = {name: path.relative_to(folder).as_posix() for name, path in paths_by_name.items()}
    return true_parents(
        {n: table.checkpoints[p] for n, p in paths.items()},
        lambda model: table.parents.get(model, ()),
    )


def test_without_a_table_there_is_no_truth(tmp_path):
    assert truth(tmp_path) is None
    assert truth(tmp_path, models="file,lr\na.pt,0.1\n") is None


@pytest.mark.parametrize(
    "text",
    [
        "model,parent\na,\nb,a\ndeep/c,a;b\n",
        "model,parent\na,\nb,a\ndeep/c,a\ndeep/c,b\n",
        "\ufeffparent, model ,why\n,a.pt,first\na.pt,b.safetensors,\n\na;b.safetensors,deep/c.pt,x\n",
    ],
)
def test_a_lineage_table_names_parents_by_files_with_or_without_suffix(tmp_path, text):
    assert truth(tmp_path, lineage=text) == {"a": (), "b": ("a",), "deep/c": ("a", "b")}


def test_models_without_files_may_stand_between(tmp_path):
    text = "model,parent\na,\nmissing,a\nb,missing\ndeep/c,\n"
    assert truth(tmp_path, lineage=text)["b"] == ("a",)


def test_the_lineage_table_goes_before_the_table_of_models(tmp_path):
    models = "file,parent\na.pt,\nb.safetensors,a.pt\ndeep/c.pt,a.pt\n"
    assert truth(tmp_path, models=models)["b"] == ("a",)
    assert truth(tmp_path, lineage="model,parent\na,\nb,\ndeep/c,\n")["b"] == ()


def test_a_table_of_models_tells_parents_by_name_and_epoch(tmp_path):
    models = (
        "file,name,parent,parent_epoch,epoch\na.pt,one,,,1\nb.safetensors,one,,,4\ndeep/c.pt,two,"
    )
    assert truth(tmp_path, models=models + "one,3,2\n") == {"a": (), "b": ("a",), "deep/c": ("a",)}
    assert truth(tmp_path, models=models + "one,,2\n")["deep/c"] == ("b",)
    # an exported model whose parent was not exported
    assert truth(tmp_path, models=models + "0123456789ab,3,2\n")["deep/c"] == ()


def test_a_merged_model_descends_from_its_ingredients_and_its_base(tmp_path):
    head = "file,name,parent,operator,ingredients\na.pt,a,,,\nb.safetensors,b,a,,\n"
    for row, expected in {
        'c,,uniform_soup,"[""a@1"", ""b@2""]"': {"a", "b"},
        'c,a,wise_ft,"[""b@2""]"': {"a", "b"},
        'c,,weight_matching,"[""a@1"", ""b@2""]"': {"b"},
    }.items():
        parents = truth(tmp_path, models=f"{head}deep/c.pt,{row}\n")
        assert set(parents["deep/c"]) == expected


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("lineage", "name,parent\n", " has no column 'model', only name, parent"),
        ("lineage", "", " has no column 'model', only none"),
        ("lineage", "model,parent\na,\n,a\n", "row 3, column 'model': empty"),
        (
            "lineage",
            "model,parent\na,\nb,aa\n",
            "row 3, column 'parent': there is no file of 'aa', and no row",
        ),
        ("lineage", "model,parent\na,b,c\n", "row 2 has 3 cells, the header 2"),
        ("lineage", "model,parent\na,\nb,a\n", "has no row for deep/c.pt; add one"),
        ("lineage", "model,parent\na,b\nb,a\ndeep/c,\n", "its own ancestor: [ab] -> [ab] -> [ab]"),
        ("lineage", 'model,parent\na,"b\n', "is no CSV table"),
        ("models", "file,parent\na.pt,b.pt\n", "row 2: no row has the name 'b.pt' of its parent"),
        ("models", "file,parent\n,a.pt\n", "row 2, column 'file': empty"),
        ("models", "name,parent\na,\n", " has no column 'file', only name, parent"),
        ("models", "file,parent,epoch\na.pt,,1.5\n", "row 2, column 'epoch': '1.5' is not a whole"),
        (
            "models",
            "file,name,parent\na.pt,x,\nb.safetensors,y,\ndeep/c.pt,x,y\n",
            "row 4: x has another parent in a row before",
        ),
        (
            "models",
            "file,parent,operator\na.pt,,uniform_soup\n",
            "row 2: uniform_soup made the model, and the column ingredients does not say of what",
        ),
        (
            "models",
            'file,parent,operator,ingredients\na.pt,,uniform_soup,"[1]"\n',
            "row 2: uniform_soup made the model",
        ),
    ],
)
def test_a_fault_is_named_with_the_table_and_the_row(tmp_path, table, text, message):
    with pytest.raises(InvalidInput, match=rf"{re.escape(str(tmp_path))}/{table}.csv.*{message}"):
        truth(tmp_path, **{table: text})


def test_a_parent_that_is_misspelt_gets_the_name_that_was_meant(tmp_path):
    with pytest.raises(InvalidInput, match=r"did you mean 'deep/c'\?.*give a parent whose file"):
        truth(tmp_path, lineage="model,parent\na,\ndeep/c,\nb,deep/d\n")


def test_text_that_is_not_unicode_is_an_error(tmp_path):
    (tmp_path / "lineage.csv").write_bytes(b"model,parent\n\xff,\n")
    with pytest.raises(InvalidInput, match=r"lineage.csv is no CSV table"):
        truth(tmp_path)


def test_a_long_line_of_descent_is_no_problem(tmp_path):
    count = 2 * sys.getrecursionlimit()
    lines = [f"x{n},x{n - 1}" for n in range(1, count)]
    text = "\n".join(["model,parent", "a,", "x0,a", *lines, f"b,x{count - 1}", "deep/c,"])
    assert truth(tmp_path, lineage=text) == {"a": (), "b": ("a",), "deep/c": ()}
