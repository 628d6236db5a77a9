"""What the page says of two models is what measures say of them."""

import pytest
import torch

from vitarium import compare, measure
from vitarium.core.errors import UnknownName
from vitarium.explorer.pairs import pair


@pytest.fixture
def siblings(grown_zoo):
    return next(model for model in grown_zoo if model.children).children[:2]


def test_predictions_and_weights_differ_as_measured(grown_zoo, siblings):
    first, second = (model.id for model in siblings)
    shown = pair(grown_zoo.path, first, second)
    rows = measure(grown_zoo, "agreement", models=[first, second], pairs="all")
    (agreement,) = rows[rows["part"] == ""]["value"]
    predictions = shown["predictions"]
    assert predictions["agreement"] == pytest.approx(agreement)
    alone = predictions["first_right"] - predictions["second_right"]
    accuracies = [model.metrics["test_accuracy"].iloc[-1] for model in siblings]
    assert alone == pytest.approx(accuracies[0] - accuracies[1], abs=1e-6)
    assert len(predictions["disagreements"]) == min(
        16, round((1 - agreement) * predictions["images"])
    )
    assert all(each["first"] != each["second"] for each in predictions["disagreements"])
    weights = [model.state_dict() for model in siblings]
    blocks = {each["part"]: each["distance"] for each in shown["distances"]}
    names = [name for name in weights[0] if name.startswith("blocks.0.")]
    change = sum((weights[0][n] - weights[1][n]).double().square().sum() for n in names)
    norm = sum(weights[0][n].double().square().sum() for n in names)
    assert blocks["blocks.0"] == pytest.approx(float((change / norm).sqrt()))
    assert not any("head" in part for part in blocks)


def test_similarity_is_that_of_the_blocks(grown_zoo, siblings):
    first, second = siblings
    shown = pair(grown_zoo.path, first.id, second.id)["similarity"]
    images = torch.stack([image for image, _ in first.data()])
    assert shown["images"] == len(images)  # all of them, as they are few
    table = compare(first.load(), second.load(), images)
    assert (shown["rows"], shown["columns"]) == (table.index.tolist(), table.columns.tolist())
    assert shown["values"] == [pytest.approx(row, abs=1e-4) for row in table.to_numpy().tolist()]


def test_a_model_is_like_itself(grown_zoo, siblings):
    id = siblings[0].id
    shown = pair(grown_zoo.path, id, id)
    assert shown["predictions"]["agreement"] == 1
    assert {each["distance"] for each in shown["distances"]} == {0}
    diagonal = [row[n] for n, row in enumerate(shown["similarity"]["values"])]
    assert diagonal == pytest.approx([1] * len(diagonal), abs=1e-4)


def test_a_model_that_is_not_there_is_named(grown_zoo, siblings):
    with pytest.raises(UnknownName):
        pair(grown_zoo.path, siblings[0].id, "f" * 12)
