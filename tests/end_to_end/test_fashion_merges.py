"""Every operator by its name on a zoo that was trained on Fashion-MNIST."""

import pytest
import torch

from vitarium import Blueprint, grow, measure, merge
from vitarium.core import registry
from vitarium.data.datasets.fashion_mnist import DEBIAN

BLUEPRINT = {
    "name": "fashion-merges",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "vit",
                "img_size": 28,
                "patch_size": 7,
                "in_chans": 1,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
            },
            "data": {"name": "fashion_mnist", "train_limit": 4000},
            "optimizer": {"name": "adamw", "lr": 0.002},
            "epochs": 3,
            "batch_size": 64,
            "grid": {"seed": [1, 2]},
        },
        "finetune": {
            "start": "pretrain",
            "data": {"name": "fashion_mnist", "train_limit": 2000},
            "head": {"name": "linear", "seed": 0},
            "optimizer": {"name": "adamw", "lr": 0.0005},
            "epochs": 3,
            "batch_size": 64,
            "grid": {"seed": [1, 2, 3]},
        },
    },
}
BLUEPRINT["stages"]["experts"] = BLUEPRINT["stages"]["pretrain"] | {
    "architecture": BLUEPRINT["stages"]["pretrain"]["architecture"] | {"name": "ewa_vit"},
    "grid": {"seed": [1]},
}
SHORT = {"images": 256, "steps": 4, "restarts": 1, "epochs": 1}
OF_FEW_EPOCHS = {"epoch_average": {"last": 2}, "lawa": {"k": 2}, "swa": {"start": 0.5}}
OPERATORS = registry.plugins("operator")
CHANCE = 0.1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    assert DEBIAN.exists(), "install the package dataset-fashion-mnist"
    folder = tmp_path_factory.mktemp("fashion") / "zoo"
    return grow(Blueprint.read(BLUEPRINT), folder, progress=False).zoo


@pytest.fixture(scope="module")
def siblings(zoo):
    table = zoo.models().query("stage == 'finetune'")
    return table[table["parent"] == table["parent"].iloc[0]]["id"].tolist()


@pytest.mark.parametrize("name", OPERATORS)
def test_siblings_are_combined_into_a_model_that_still_classifies(zoo, siblings, name):
    facts = OPERATORS[name].facts
    most = 1 if facts.get("epochs") else facts.get("count", (2, None))[1]
    fields = OPERATORS[name].config.model_fields
    settings = {key: value for key, value in SHORT.items() if key in fields}
    settings |= OF_FEW_EPOCHS.get(name, {})
    models = siblings[:most]
    if name == "experts_average":
        models = zoo.models().query("stage == 'experts'")["id"].tolist()
    made = merge(zoo, models, name, **settings)
    assert all(torch.isfinite(tensor).all() for tensor in zoo.state_dict(made).values())
    accuracy = measure(zoo, "accuracy", models=[made], images=500).query("part == ''")["value"]
    assert accuracy.item() > 3 * CHANCE


def test_a_soup_of_siblings_is_as_good_as_the_mean_of_them(zoo, siblings):
    soup = merge(zoo, siblings, "uniform_soup")
    table = measure(zoo, "accuracy", models=[*siblings, soup]).query("part == ''")
    values = table.set_index("model")["value"]
    assert values[soup] >= values[siblings].mean() - 0.01
