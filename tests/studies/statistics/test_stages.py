"""What is gathered of a zoo and its measures."""

import json

import numpy as np
import pandas as pd
import pytest

from vitarium.core import files
from vitarium.studies.statistics.stages import read_stages

COLUMNS = ["model", "other", "measure", "part", "value", "refused"]


@pytest.fixture
def ids(written_zoo):
    return written_zoo.models().groupby("stage")["id"].apply(list).to_dict()


def measured(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"value": float})


def test_stages_have_their_models_by_lineage_and_their_factors(written_zoo, ids):
    known = read_stages(written_zoo, written_zoo.ids(), measured())
    pretrain, finetune = known.stages
    assert (pretrain.name, finetune.name) == ("pretrain", "finetune")
    assert [factor.name for factor in finetune.factors] == ["lr", "parent"]
    assert finetune.factors[1].equivalent == ("parent's seed",)
    assert set(finetune.ids) == set(ids["finetune"])
    parents = finetune.parents
    assert parents[0] == parents[1] != parents[2] == parents[3]
    assert finetune.factors[0].labels.index.tolist() == finetune.ids


def test_an_accuracy_that_is_not_measured_is_the_last_epochs(written_zoo, ids):
    first, second = ids["pretrain"]
    rows = measured((first, None, "accuracy", "", 0.9, ""))
    stage = read_stages(written_zoo, written_zoo.ids(), rows).stages[0]
    logged = written_zoo.models().set_index("id")["test_accuracy"]
    assert stage.models["accuracy"].to_dict() == {first: 0.9, second: logged[second]}
    assert stage.score == "test accuracy"
    curve = stage.epochs[stage.epochs["model"] == second]
    assert curve["epoch"].tolist() == [0, 1, 2]
    assert curve["accuracy"].iloc[-1] == logged[second]


def by_neighbors(zoo, id):
    """Let a model's accuracies be by k-NN."""
    path = zoo.path / "models" / id / "epochs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
    for line in lines:
        line["metrics"]["test_knn_accuracy"] = line["metrics"].pop("test_accuracy")
    files.write_lines(path, lines)


def test_accuracies_by_neighbors_are_not_averaged_with_others(written_zoo, ids):
    first, second = ids["pretrain"]
    by_neighbors(written_zoo, first)
    stage = read_stages(written_zoo, written_zoo.ids(), measured()).stages[0]
    logged = written_zoo.models().set_index("id")
    assert stage.models["accuracy"].dropna().to_dict() == {
        second: logged.loc[second, "test_accuracy"]
    }
    assert set(stage.epochs["model"]) == {second}
    assert stage.score == "test accuracy (without that of 1 model by k-NN)"
    by_neighbors(written_zoo, second)
    stage = read_stages(written_zoo, written_zoo.ids(), measured()).stages[0]
    assert stage.score == "test accuracy (k-NN)"
    logged = written_zoo.models().set_index("id")["test_knn_accuracy"]
    assert stage.models["accuracy"].to_dict() == logged[[first, second]].to_dict()


def test_measured_accuracies_are_not_averaged_with_those_by_neighbors(written_zoo, ids):
    first, second = ids["pretrain"]
    by_neighbors(written_zoo, first)
    by_neighbors(written_zoo, second)
    rows = measured((first, None, "accuracy", "", 0.9, ""))
    stage = read_stages(written_zoo, written_zoo.ids(), rows).stages[0]
    assert stage.models["accuracy"].dropna().to_dict() == {first: 0.9}


def test_pairs_are_a_symmetric_matrix_of_the_last_layer(written_zoo, ids):
    one, other = ids["pretrain"]
    rows = measured(
        (one, other, "cka", "blocks.9", 0.1, ""),
        (one, other, "cka", "blocks.10", 0.7, ""),
        (one, other, "agreement", "", 0.4, ""),
    )
    stage = read_stages(written_zoo, written_zoo.ids(), rows).stages[0]
    for measure, value in {"cka": 0.7, "agreement": 0.4}.items():
        matrix = stage.pairs[measure]
        assert matrix[0, 1] == matrix[1, 0] == value
        assert np.isnan(np.diag(matrix)).all()


def test_what_has_no_value_is_missing_with_the_reason(written_zoo, ids):
    one, other = ids["pretrain"]
    rows = measured(
        (one, None, "loss", "", 0.5, ""),
        (other, None, "loss", "", np.nan, "its outputs are no classes"),
        (one, other, "agreement", "", np.nan, "other data"),
    )
    loss, agreement = read_stages(written_zoo, written_zoo.ids(), rows).stages[0].missing
    assert (loss.measure, loss.count, loss.total, loss.why) == (
        "loss", 1, 2, "its outputs are no classes",
    )  # fmt: skip
    assert (agreement.count, agreement.total, agreement.pairs) == (0, 1, True)


def test_statistics_that_only_some_models_have_are_left_out(written_zoo, ids):
    one, other = ids["pretrain"]
    rows = measured(
        (one, None, "layer_statistics", "blocks.0/mean", 0.1, ""),
        (other, None, "layer_statistics", "blocks.0/mean", 0.2, ""),
        (one, None, "layer_statistics", "head.fc1/mean", 0.3, ""),
    )
    stage = read_stages(written_zoo, written_zoo.ids(), rows).stages[0]
    assert stage.statistics.columns.tolist() == ["blocks.0/mean"]
    assert stage.statistics.loc[other, "blocks.0/mean"] == 0.2


def test_models_that_are_not_finished_are_left_out_and_counted(written_zoo, ids):
    (written_zoo.folder(ids["finetune"][0]).path / "result.json").unlink()
    known = read_stages(written_zoo, written_zoo.ids(), measured())
    assert dict(known.left_out) == {"training": 1}
    assert len(known) == 5


def test_a_stage_alone_still_knows_what_its_parents_were(written_zoo, ids):
    (stage,) = read_stages(written_zoo, ids["finetune"], measured()).stages
    (parent,) = [factor for factor in stage.factors if factor.name == "parent"]
    assert parent.equivalent == ("parent's seed",)
