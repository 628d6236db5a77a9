"""A zoo with a trained model of two blocks, and a stage that learned without classes."""

import shutil

import pytest

ARCHITECTURE = {
    "name": "vit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
}


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    from vitarium import Blueprint, grow

    blueprint = {
        "name": "teachers",
        "stages": {
            "teacher": {
                "architecture": ARCHITECTURE,
                "data": {"name": "digits", "train_limit": 64},
                "epochs": 2,
                "batch_size": 16,
                "optimizer": {"name": "adamw", "lr": 3e-3},
                "checkpoints": "last",
                "variants": [
                    {"head": {"name": "mlp", "hidden_dim": 8}},
                    {"objective": {"name": "simclr", "out_dim": 8}, "augmentation": "simclr"},
                ],
            }
        },
    }
    folder = tmp_path_factory.mktemp("teachers") / "zoo"
    grow(Blueprint.read(blueprint), folder, workers=0, progress=False)
    return folder


@pytest.fixture
def zoo(_trained, tmp_path):
    from vitarium import Zoo

    return Zoo.open(shutil.copytree(_trained, tmp_path / "zoo"))


@pytest.fixture
def teacher(zoo):
    """Id of the model that learned classes."""
    models = zoo.models()
    return models[models["objective"] == "supervised"]["id"].iloc[0]


@pytest.fixture
def classless(zoo, teacher):
    """Id of the other."""
    return next(id for id in zoo.ids() if id != teacher)
