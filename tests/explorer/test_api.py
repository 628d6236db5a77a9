"""What the page is told of a zoo is what the zoo itself says."""

import math
import subprocess
import sys

import pandas as pd
import pytest
from listing import write_zoo

from vitarium import Zoo, measure, merge
from vitarium.core import files
from vitarium.page import models_table
from vitarium.page.models_table import encode
from vitarium.zoo.listing import listing


def values(table, name):
    """A column as the page shows it."""
    if name in table["constants"]:
        return [table["constants"][name]] * len(table["ids"])
    (column,) = [each for each in table["columns"] if each["name"] == name]
    if column["type"] == "number":
        return column["values"]
    return [None if code < 0 else column["levels"][code] for code in column["codes"]]


def test_the_table_has_every_model_factor_and_score(client, kept_zoo):
    measure(kept_zoo, "alpha")
    table = client.get("/api/models.json").json()
    frame = kept_zoo.models().set_index("id").loc[table["ids"]]
    assert table["ids"] == [row["model"] for row in listing(kept_zoo.path).rows]
    named = {column["name"] for column in table["columns"]} | {*table["constants"]}
    assert {name for name in frame if frame[name].notna().any()} <= named | {"id"}
    for name in ("optimizer.lr", "val_accuracy", "alpha", "seed"):
        shown = [math.nan if each is None else each for each in values(table, name)]
        assert shown == pytest.approx(frame[name].tolist(), nan_ok=True)
    parents = [None if each != each else each for each in frame["parent"]]
    assert values(table, "parent") == parents
    groups = {column["name"]: column["group"] for column in table["columns"]}
    assert groups["parent"] == "fact"
    assert groups["optimizer.lr"] == "factor"
    assert groups["alpha"] == "measure"
    assert groups["val_accuracy"] == "metric"


def test_what_is_shown_first_are_the_columns_of_ls(client, kept_zoo):
    table = client.get("/api/models.json").json()
    labels = {column["name"]: column["label"] for column in table["columns"]}
    headed = {*listing(kept_zoo.path).rows[0]}
    assert table["shown"]
    assert {labels[name] for name in table["shown"]} <= headed


def test_a_number_that_is_none_is_not_sent_as_one(kept_zoo):
    encoded = encode(pd.Series([1.0, math.nan, None, math.inf]))
    assert encoded == {"type": "number", "values": [1.0, None, None, None]}


def test_a_models_page_has_its_family_and_epochs(client, kept_zoo):
    child = next(model for model in kept_zoo if model.parent)
    page = client.get(f"/api/models/{child.id[:8]}.json").json()
    assert page["id"] == child.id
    assert page["parent"]["model"] == child.parent.id
    assert page["siblings"] == [m.id for m in child.parent.children if m.id != child.id]
    assert [epoch["epoch"] for epoch in page["epochs"]] == child.metrics["epoch"].tolist()
    siblings = [kept_zoo[id].factors for id in page["siblings"]]
    for name in page["differing"]:
        assert any(other.get(name) != child.factors[name] for other in siblings)
    lines = "\n".join(page["python"])
    compile(lines, "page", "exec")
    assert repr(child.id) in lines


def test_a_condition_chooses_models(change, kept_zoo):
    status, answer = change("/api/query", where="parent IS NOT NULL")
    assert (status, {*answer["ids"]}) == (200, {m.id for m in kept_zoo if m.parent})
    assert change("/api/query", where="stage = 'none'") == (200, {"ids": []})
    status, answer = change("/api/query", where="optimizer.lrr < 1")
    assert status == 400
    assert "did you mean 'optimizer.lr'" in answer["error"]
    status, answer = change("/api/query", where=3)
    assert (status, answer["error"]) == (422, "where: Input should be a valid string")
    assert change("/api/query", where="", wher="")[0] == 422


def test_a_condition_holds_for_the_zoo_as_the_page_has_it(change, client, kept_zoo, monkeypatch):
    id, other = kept_zoo.ids()[:2]
    assert change("/api/query", where="tags = 'best'")[1]["ids"] == []
    change(f"/api/models/{id}/tag", tag="best")  # seen at once
    assert change("/api/query", where="tags = 'best'")[1]["ids"] == [id]
    kept_zoo.tag(other, "best")  # by another program: seen with the page's next look
    assert change("/api/query", where="tags = 'best'")[1]["ids"] == [id]
    client.get("/api/zoo.json")
    assert {*change("/api/query", where="tags = 'best'")[1]["ids"]} == {id, other}
    kept_zoo.untag(id, "best")
    monkeypatch.setattr(models_table, "_STAMP_SECONDS", 0.0)  # or after ten seconds
    assert change("/api/query", where="tags = 'best'")[1]["ids"] == [other]
    assert change("/api/query", where="SELECT")[0] == 400
    assert change("/api/query", where="tags = 'best'")[1]["ids"] == [other]


def test_tags_and_notes_are_written_where_the_command_line_has_them(change, kept_zoo):
    id = kept_zoo.ids()[0]
    assert change(f"/api/models/{id}/tag", tag="best")[1]["tags"] == ["best"]
    assert change(f"/api/models/{id}/note", note="seen")[1]["note"] == "seen"
    assert (kept_zoo[id].tags, kept_zoo[id].note) == (("best",), "seen")
    assert change(f"/api/models/{id}/tag", tag="best", remove=True)[1]["tags"] == []
    status, answer = change(f"/api/models/{id}/tag", tag="a, b")
    assert (status, "comma" in answer["error"]) == (400, True)


def test_a_model_that_is_not_there_is_named(client):
    response = client.get("/api/models/zzz.json")
    assert response.status_code == 404
    assert "unknown model 'zzz'" in response.json()["error"]


def test_a_soups_page_names_its_ingredients(client, kept_zoo):
    children = next(model for model in kept_zoo if model.children).children
    soup = merge(kept_zoo, "uniform_soup", models=children)
    page = client.get(f"/api/models/{soup.id}.json").json()
    assert (page["operator"], page["parent"]) == ("uniform_soup", None)
    assert page["ingredients"] == [{"model": m, "epoch": e} for m, e in soup.ingredients]
    child = client.get(f"/api/models/{children[0].id}.json").json()
    assert child["parent"] == children[0].parent_checkpoint._asdict()
    factors = {k: v for k, v in children[0].factors.items() if v is not None}
    assert child["factors"].keys() == factors.keys()
    numbers = {k: v for k, v in factors.items() if type(v) in (int, float)}
    assert {k: child["factors"][k] for k in numbers} == numbers
    assert (
        child["trained"]["trained.torch"] == kept_zoo.folder(child["id"]).about().software["torch"]
    )
    assert child["differing"] == ["optimizer.lr"]


def test_pages_take_neither_plugins_nor_torch(tmp_path):
    write_zoo(
        tmp_path / "zoo", 12, version=1
    )  # which says of its models less than this version does
    zoo = Zoo.open(tmp_path / "zoo")
    zoo.models()  # with its index, which is made once
    lines = f"""
import sys, vitarium
from vitarium.page.model_page import model_page
from vitarium.page.models_table import models_table
zoo = vitarium.Zoo.open({str(zoo.path)!r})
assert model_page(zoo, {zoo.ids()[0]!r})["id"] in models_table(zoo)["ids"]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True)


@pytest.mark.parametrize("text", ['["', '["a"', '["a", 1]', "[1", '{"a":'])
def test_a_note_that_begins_like_json_is_a_note(client, change, kept_zoo, text):
    id = kept_zoo.ids()[0]
    assert change(f"/api/models/{id}/note", note=text)[0] == 200
    assert change(f"/api/models/{id}/tag", tag=text.replace(",", ";"))[0] == 200
    table = client.get("/api/models.json").json()
    row = table["ids"].index(id)
    assert values(table, "note")[row] == text
    assert values(table, "tags")[row] == text.replace(",", ";")


def test_metrics_may_have_the_names_of_columns(client, kept_zoo):
    for id in kept_zoo.ids():
        file = kept_zoo.folder(id).path / "epochs.jsonl"
        lines = files.read_lines(file, sealed=True)
        for number, line in enumerate(lines):
            line["metrics"] |= {
                "model": 4.0,
                "score": number + 0.5,
                'a "b"': 1.5,
                "text": "<b>",
                "list": [1, 2],
                "large": 10**400,
            }
        files.write_lines(file, lines)
    table = client.get("/api/models.json").json()
    assert sorted(table["ids"]) == kept_zoo.ids()
    names = [column["name"] for column in table["columns"]] + [*table["constants"]]
    assert len(names) == len({*names})
    epochs = client.get("/api/epochs.json").json()
    assert {*epochs["metrics"]['a "b"']} == {1.5}
    assert not {"text", "list", "large"} & {*epochs["metrics"]}
    page = client.get(f"/api/models/{kept_zoo.ids()[0]}.json").json()
    assert page["epochs"][0]["large"] is None


def test_a_zoo_that_is_moved_is_none_and_its_folder_stays_gone(client, change, kept_zoo):
    assert client.get("/api/models.json").status_code == 200
    kept_zoo.path.rename(kept_zoo.path.with_name("moved"))
    for name in ("zoo", "models", "epochs", "live", "studies"):
        response = client.get(f"/api/{name}.json")
        assert response.status_code == 400
        assert "is not a zoo" in response.json()["error"]
    assert change("/api/query", where="1 = 1")[0] == 400
    assert not kept_zoo.path.exists()
