"""The study of factors of a zoo: what is read, what is said, and what is wrong."""

import shutil

import numpy as np
import pytest

import vitarium
from vitarium import Blueprint, Zoo, plan
from vitarium.core.errors import InvalidInput
from vitarium.zoo import About

TINY = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1}
BLUEPRINT = {
    "name": "factors",
    "stages": {
        "train": {
            "architecture": {**TINY, "num_heads": 2},
            "data": {"name": "digits", "train_limit": 100},
            "augmentation": {"name": "standard", "padding": 1},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "epochs": 1,
            "batch_size": 32,
            "grid": {
                "data.train_limit": [100, 200, None],
                "augmentation.crop": ["center", "random"],
                "optimizer.lr": [1e-3, 1e-2],
                "seed": [1, 2],
            },
        }
    },
}
QUICK = {"n_resamples": 50}


@pytest.fixture(scope="module")
def _written(tmp_path_factory):
    """24 models with made-up accuracies and without weights; one diverged, one is unfinished."""
    zoo, random = Zoo.create(tmp_path_factory.mktemp("factors") / "zoo"), np.random.default_rng(0)
    for number, spec in enumerate(plan(Blueprint.read(BLUEPRINT)).models):
        folder, factors = zoo.folder(spec.id), spec.described()
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        amount = factors["data.train_limit"] or 1294
        worth = 2 if factors["augmentation.crop"] == "random" else 1
        accuracy = 0.95 - 2 * (worth * amount) ** -0.4 + 0.002 * random.normal()
        accuracy = float("nan") if number == 5 else float(accuracy)
        for epoch in (0, 1):
            folder.commit(epoch, {"test_accuracy": accuracy, "test_loss": 2 - accuracy}, None, None)
        if number != 7:
            folder.finish("finished")
    return zoo.path


@pytest.fixture
def zoo(_written, tmp_path):
    return Zoo.open(shutil.copytree(_written, tmp_path / "zoo"))


def test_what_matters_is_said_and_tabled(zoo, tmp_path):
    page = tmp_path / "page.html"
    result = vitarium.study(zoo, "factors", out=page, **QUICK)
    shares = result["What each factor explains"].set_index("factor")
    assert list(shares.index[:2]) == ["train_limit", "crop"]
    assert shares["alone"]["train_limit"] > 0.5 > shares["alone"]["lr"]
    assert shares["p"]["crop"] < 0.01
    assert shares["to"]["crop"] == "random"
    sentences = " ".join(result.sentences)
    assert "train_limit matters most" in sentences
    assert "22 models" in sentences
    assert [figure.name for figure in result.tables.figures][:2] == ["shares", "by-train_limit"]
    text = page.read_text(encoding="utf-8")
    assert "1 training and 1 diverged (not finite)" in text


def test_what_augmentation_is_worth_in_data_counts_the_whole_data_set_too(zoo):
    """Without a limit there are 1,438 training images less a tenth for validation."""
    result = vitarium.study(zoo, "factors", references={"augmentation.crop": "center"}, **QUICK)
    table = result["Equivalent data factor"]
    rows = table[(table["factor"] == "crop") & (table["level"] == "random")]
    assert rows["train_limit"].tolist() == [100, 200, 1294]
    assert rows["multiple"].iloc[0] == pytest.approx(2, rel=0.4)
    assert "more than" in rows["equivalent data"].iloc[2]


def test_the_target_is_any_expression_and_models_may_be_chosen(zoo):
    result = vitarium.study(
        zoo, "factors", target="1 - test_loss", where="lr < 0.005", ignored=["crop"], **QUICK
    )
    assert result["What each factor explains"]["factor"].tolist() == ["train_limit"]
    models = result["All models"]
    assert models["1 - test_loss"].between(-1, 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "test_acuracy"}, "unknown column 'test_acuracy'; did you mean 'test_accuracy'"),
        ({"target": "weight_norm"}, "weight_norm is not measured yet: vitarium measure"),
        ({"target": "optimizer"}, "optimizer.* is no number"),
        ({"target": "NULL"}, "no model of the stage train has a finite value of NULL"),
        ({"stage": "trian"}, "unknown stage 'trian'; did you mean 'train'"),
        ({"ignored": ["cropp"]}, "unknown factor 'cropp'; did you mean 'crop'"),
        ({"data_factor": "size"}, "unknown factor 'size'"),
        ({"data_factor": "crop"}, "crop is no amount of data"),
        ({"where": "lr < 0.005 AND crop = 'random' AND train_limit = 100"}, "no factor varies"),
    ],
)
def test_what_is_wrong_is_named(zoo, settings, message):
    with pytest.raises(InvalidInput, match=message):
        vitarium.study(zoo, "factors", **QUICK, **settings)


def test_the_last_stage_is_that_of_the_children(written_zoo):
    with pytest.raises(InvalidInput, match="stage finetune"):
        vitarium.study(written_zoo, "factors", target="NULL", **QUICK)
    with pytest.raises(InvalidInput, match=r"no factor varies .* pretrain but seed"):
        vitarium.study(written_zoo, "factors", stage="pretrain", **QUICK)


def test_a_misspelled_setting_is_an_error(zoo):
    with pytest.raises(InvalidInput, match="tarjet"):
        vitarium.study(zoo, "factors", tarjet="test_loss")
