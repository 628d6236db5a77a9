"""What the page is told of a zoo is what the zoo itself says."""

import math

import pandas as pd
import pytest

from vitarium import measure
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
    status, answer = change("/api/query", where="optimizer.lrr < 1")
    assert status == 400
    assert "did you mean 'optimizer.lr'" in answer["error"]
    status, answer = change("/api/query", where=3)
    assert (status, answer["error"]) == (422, "where: Input should be a valid string")
    assert change("/api/query", where="", wher="")[0] == 422


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
