"""What a listing shows beside factors: kinds of scores, ingredients, measured numbers."""

import json
import shutil

import pandas as pd
import pytest

from vitarium import Blueprint, Zoo, plan
from vitarium.blueprint.spec import ImportedSpec
from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import choose
from vitarium.zoo import About, records
from vitarium.zoo.listing import evaluate, listing
from vitarium.zoo.records import Measured


@pytest.fixture
def zoo(written_once, tmp_path):
    return Zoo.open(shutil.copytree(written_once, tmp_path / "zoo"))


def record(zoo, id, measure, value, **facts):
    defaults = {
        "epoch": zoo.folder(id).epochs()[-1].number,
        "other": None,
        "other_epoch": None,
        "settings": "{}",
        "part": "",
        "unit": "fraction",
        "data": str(zoo.models(measured=False).set_index("id").loc[id, "data"]),
        "split": "test",
        "num_images": 100,
        "images": "i",
        "trained_on": False,
        "weights": "w",
    }
    records.add(zoo.path, [Measured(model=id, measure=measure, value=value, **defaults | facts)])


def rewrite_metrics(zoo, id, change):
    path = zoo.path / "models" / id / "epochs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
    files.write_lines(path, [{**line, "metrics": change(line["metrics"])} for line in lines])


def without_score(zoo, id):
    """As of a merged model: no accuracy from its training."""
    rewrite_metrics(zoo, id, lambda m: {k: v for k, v in m.items() if k != "test_accuracy"})


def merged(zoo, models, **settings):
    """The id of what `ties` would make of two models that differ in their learning rate."""
    refs = tuple(CheckpointRef(id, 2) for id in models)
    operator = choose("operator", "ties", **settings)
    first = zoo.spec(models[0])
    spec = first.combined(operator, refs, stage="merge", differing=["optimizer.lr"])
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, (), {}))
    folder.commit(0, {}, None, None)
    folder.finish("finished")
    return spec.id


def test_imported_models_are_listed_by_their_names(zoo):
    for name in ("base", "ft1"):
        imported = {"source": "checkpoint_table", "name": name, "weights": f"{name:0>64}"}
        spec = ImportedSpec.read({"stage": "imported", "imported": imported})
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(0, (), {}))
        folder.commit(0, {"test_accuracy": 0.5}, None, None)
        folder.finish("finished")
    rows = listing(zoo.path, where="stage = 'imported'").rows
    assert sorted(row["name"] for row in rows) == ["base", "ft1"]
    assert [(row["before"], row["after"]) for row in rows] == [(None, 0.5)] * 2
    assert list(rows[0])[:3] == ["model", "stage", "name"]


def test_a_merged_model_has_its_operator_and_ingredients_and_what_these_share(zoo):
    children = list(zoo.models(where="stage = 'finetune'")["id"])[:2]
    soup = merged(zoo, children, density=0.5)
    row = zoo.models().set_index("id").loc[soup]
    refs = [f"{id}@2" for id in children]
    assert (row["operator"], row["operator.density"], row["ingredients"]) == ("ties", 0.5, refs)
    assert pd.isna(row["optimizer.lr"])
    assert row["optimizer"] == zoo.models().set_index("id").loc[children[0], "optimizer"]
    request = zoo.query(f"SELECT operator.density d, ingredients i FROM models WHERE id = '{soup}'")
    assert (request["d"][0], json.loads(request["i"][0])) == (0.5, refs)
    counted = zoo.query("SELECT lr, count(*) AS n FROM models WHERE lr IS NOT NULL GROUP BY lr")
    assert counted["n"].sum() == len(zoo) - 1
    listed = rows_of(zoo)[soup]
    assert (listed["operator"], listed["ingredients"], listed["lr"]) == ("ties", refs, None)
    assert (listed["epochs"], listed["before"], listed["after"]) == (None, None, None)
    record(zoo, soup, "accuracy", 0.5)
    assert rows_of(zoo)[soup]["after"] == 0.5


def rows_of(zoo, **choice):
    return {row["model"]: row for row in listing(zoo.path, **choice).rows}


def test_a_score_by_nearest_neighbors_is_marked(zoo):
    id, *others = zoo.ids()
    rewrite_metrics(zoo, id, lambda m: {"test_knn_accuracy": m["test_accuracy"]})
    rows = rows_of(zoo)
    assert rows[id]["score"] == "k-NN accuracy"
    assert rows[id]["after"] == zoo.models().set_index("id").loc[id, "test_knn_accuracy"]
    assert {rows[other]["score"] for other in others} == {"accuracy"}
    assert set(rows_of(zoo, where="score = 'accuracy'")) == set(others)


def test_a_measured_accuracy_is_the_score_of_a_model_without_one(zoo):
    id, other = zoo.ids()[:2]
    without_score(zoo, id)
    assert (rows_of(zoo)[id]["after"], rows_of(zoo)[id]["score"]) == (None, None)
    trained = rows_of(zoo)[other]["after"]
    record(zoo, id, "accuracy", 0.625)
    record(zoo, other, "accuracy", 0.25)
    rows = rows_of(zoo)
    assert (rows[id]["after"], rows[id]["before"], rows[id]["score"]) == (0.625, None, "accuracy")
    assert rows[other]["after"] == trained
    assert list(rows_of(zoo, where="after = 0.625")) == [id]


def test_a_model_before_its_first_epoch_has_no_score_after_training(zoo, tiny):
    tiny["stages"]["pretrain"]["grid"] = {"seed": [9]}
    spec = plan(Blueprint.read(tiny)).models[0]
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, (), {}))
    folder.commit(0, {"test_accuracy": 0.125}, None, None)
    row = rows_of(zoo)[spec.id]
    assert (row["before"], row["after"], row["status"]) == (0.125, None, "training")
    folder.commit(1, {"test_accuracy": 0.5}, None, None)
    row = rows_of(zoo)[spec.id]
    assert (row["before"], row["after"], row["status"]) == (0.125, 0.5, "training")


@pytest.mark.parametrize(
    "facts",
    [
        {"split": "val"},
        {"data": "another"},
        {"trained_on": True},
        {"epoch": 0},
        {"part": "top5"},
    ],
)
def test_what_does_not_compare_with_other_scores_is_none(zoo, facts):
    id = zoo.ids()[0]
    without_score(zoo, id)
    record(zoo, id, "accuracy", 0.5, **facts)
    assert rows_of(zoo)[id]["after"] is None


def test_measures_are_columns_to_choose_sort_and_compare_by(zoo):
    ids = zoo.ids()
    for number, id in enumerate(ids):
        record(zoo, id, "loss", float(number), unit="nats")
        record(zoo, id, "accuracy", number / 10, part="top5")
        record(
            zoo, id, "weight_norm", 1.5, data="", split="", num_images=0, settings='{"order": 1}'
        )
    page = listing(zoo.path, columns=["loss", "Accuracy/top5", "weight_norm"], sort=["-loss"])
    assert [list(row.values()) for row in page.rows] == [
        [id, float(n), n / 10, 1.5] for n, id in reversed(list(enumerate(ids)))
    ]
    assert list(rows_of(zoo, where="loss > 4")) == ids[5:]
    with pytest.raises(UnknownName, match="did you mean 'weight_norm'"):
        listing(zoo.path, columns=["weigth_norm"])


def test_of_many_parts_the_model_as_such_alone_is_a_column(zoo):
    id = zoo.ids()[0]
    for number in range(9):
        record(zoo, id, "weight_norm", 1.0, part=f"blocks.{number}")
    record(zoo, id, "weight_norm", 3.0)
    assert listing(zoo.path, columns=["weight_norm"], limit=1).rows[0]["weight_norm"] in (3.0, None)
    with pytest.raises(UnknownName):
        listing(zoo.path, columns=["weight_norm/blocks.0"])


def test_the_usual_settings_and_the_most_images_count(zoo):
    first, second = zoo.ids()[:2]
    record(zoo, first, "loss", 1.0)
    record(zoo, second, "loss", 2.0)
    record(zoo, first, "loss", 9.0, settings='{"temperature": 2}')
    record(zoo, second, "loss", 8.0, num_images=10, images="few")
    rows = rows_of(zoo, columns=["loss"])
    assert (rows[first]["loss"], rows[second]["loss"]) == (1.0, 2.0)


def test_models_have_measured_numbers_beside_their_factors(zoo):
    id, *_ = zoo.ids()
    plain = zoo.models()
    record(zoo, id, "loss", 0.5)
    record(zoo, id, "test_accuracy", 0.75)  # a measure of a plug-in, called like a metric
    models = zoo.models()
    pd.testing.assert_frame_equal(models[plain.columns], plain)
    assert set(models.columns) - set(plain.columns) == {"loss", "measured.test_accuracy"}
    assert models.set_index("id").loc[id, "loss"] == 0.5
    assert models["loss"].isna().sum() == len(models) - 1
    pd.testing.assert_frame_equal(zoo.models(measured=False), plain)


def test_models_can_be_chosen_and_shown_by_what_varies(zoo):
    models = zoo.models()
    fine = zoo.models(where="stage = 'finetune' AND lr < 0.005")
    expected = models[(models["stage"] == "finetune") & (models["optimizer.lr"] < 0.005)]
    assert list(fine["id"]) == list(expected["id"])
    varying = zoo.models(where="stage = 'finetune'", varying=True)
    assert {"id", "parent", "optimizer.lr", "test_accuracy"} <= set(varying.columns)
    assert not {"stage", "status", "architecture", "optimizer"} & set(varying.columns)
    for column in varying.columns:
        assert varying[column].astype(str).nunique() > 1
    assert list(zoo.models(where=f"id = '{models['id'][0]}'", varying=True).columns) == ["id"]
    assert len(zoo.models(where="lr > 9", varying=True)) == 0


def test_an_expression_is_evaluated_of_each_model(zoo):
    ids = zoo.ids()
    record(zoo, ids[0], "weight_norm", 3.0)
    values = evaluate(zoo.path, "weight_norm * 2 + lr - lr", ids[:2])
    assert values == {ids[0]: 6.0, ids[1]: None}
    assert evaluate(zoo.path, "test_accuracy > 2", ids[:1]) == {ids[0]: 0.0}
    assert evaluate(zoo.path, "lr-- a comment", []) == {}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("test_acuracy", "unknown column 'test_acuracy'; did you mean 'test_accuracy'"),
        ("stage", "'stage' is no number: of model .* it is"),
        ("1 +", "this is no SQL expression: '1 [+]'"),
        ("(SELECT 1) FROM models; DROP TABLE models", "no SQL|cannot be used|statements"),
    ],
)
def test_what_is_no_number_of_a_model_is_refused(zoo, expression, message):
    with pytest.raises(InvalidInput, match=message):
        evaluate(zoo.path, expression, zoo.ids())
