"""Lineage of a zoo that was trained on Fashion-MNIST, by itself and from plain files of its weights."""

import pytest

import needs
import vitarium
from vitarium import Blueprint, grow
from vitarium.lineage.recover import recover

VIT = {
    "name": "vit",
    "img_size": 28,
    "patch_size": 7,
    "in_chans": 1,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 4,
}
SIMCLR = {
    "name": "simclr",
    "scale": [0.4, 1],
    "horizontal_flip": 0,
    "color_jitter_probability": 0,
    "grayscale": 0,
    "blur": 0,
}
ADAMW = {"name": "adamw", "weight_decay": 0}
WARM = {"name": "cosine", "warmup_epochs": 1}
# the recipes of benchmarks/lineage_accuracy.py, with fewer models
BLUEPRINT = {
    "name": "lineage",
    "stages": {
        "pretrain": {
            "architecture": VIT,
            "data": {"name": "fashion_mnist", "train_limit": 6000},
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
            "schedule": WARM,
            "epochs": 6,
            "batch_size": 64,
            "variants": [
                {
                    "objective": {"name": "simclr", "temperature": 0.2, "out_dim": 48},
                    "head": {"name": "mlp", "hidden_dim": 48},
                    "augmentation": SIMCLR,
                },
                {"augmentation": {"name": "standard", "crop": "random", "padding": 1}},
            ],
        },
        "finetune": {
            "start": "pretrain",
            "data": "mnist5k",
            "schedule": WARM,
            "epochs": 4,
            "batch_size": 64,
            "variants": [
                {"optimizer": ADAMW, "grid": {"optimizer.lr": [1e-3, 1e-4]}},
                {"optimizer": {"name": "sgd", "momentum": 0.9, "lr": 3e-2}},
            ],
        },
        "again": {
            "start": "finetune",
            "data": "digits",
            "schedule": WARM,
            "epochs": 6,
            "batch_size": 32,
            "optimizer": ADAMW,
            "grid": {"optimizer.lr": [1e-3, 1e-4]},
        },
    },
}

pytestmark = pytest.mark.evidence


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two parents, six children, twelve grandchildren, and three soups of children."""
    needs.fashion_mnist()
    folder = tmp_path_factory.mktemp("lineage") / "zoo"
    grown = grow(
        Blueprint.read(BLUEPRINT), folder, precision="fp32", compiled=False, progress=False
    ).zoo
    children = grown.models().query("stage == 'finetune'").groupby("parent")["id"].apply(list)
    for siblings in children:
        vitarium.merge(grown, "uniform_soup", models=siblings[:2])
    vitarium.merge(grown, "uniform_soup", models=children.iloc[0])
    return vitarium.Zoo.open(folder)


@pytest.fixture(scope="module")
def found(zoo):
    return recover(zoo, compare=["mother"])


def test_families_roots_and_parents_are_found(found):
    assert found.scores.models == 2 + 6 + 12 + 3
    assert found.scores.adjusted_rand_index == 1
    assert found.scores.root_accuracy == 1
    assert found.scores.parent_accuracy >= 0.9


def test_all_parents_of_soups_are_found(found):
    assert found.scores.mixtures == 3
    assert found.scores.mixtures_found == 1
    kinds = {edge.kind for edge in found.forest.edges if edge.share < 1}
    assert kinds == {"merged"}


def test_no_other_method_is_better(found):
    _, mother = found.others["mother"]
    assert found.scores.node_accuracy >= mother.node_accuracy
    assert found.scores.adjusted_rand_index >= mother.adjusted_rand_index


def test_plain_files_have_the_same_forest(found, zoo, tmp_path):
    folder = tmp_path / "files"
    vitarium.export(zoo, "safetensors", out=folder)
    by_files = recover(folder, truth=True)
    assert by_files.scores == found.scores
    model = {name: about["file"].split("-epoch-")[0] for name, about in by_files.info.items()}
    edges = {
        (model[edge.parent], model[edge.child]): edge.confidence for edge in by_files.forest.edges
    }
    expected = {(edge.parent, edge.child): edge.confidence for edge in found.forest.edges}
    assert edges == pytest.approx(expected, rel=1e-6)
    roots = {model[name]: sure for name, sure in by_files.forest.roots.items()}
    assert roots == pytest.approx(found.forest.roots, rel=1e-6)


def test_files_without_a_table_have_the_same_forest_too(found, zoo, tmp_path):
    folder = tmp_path / "files"
    vitarium.export(zoo, "safetensors", out=folder)
    (folder / "models.csv").unlink()
    for number, file in enumerate(sorted(folder.glob("*.safetensors"), reverse=True)):
        file.rename(folder / f"download {number:02}.safetensors")
    forest = recover(folder).forest
    assert len(forest.edges) == len(found.forest.edges)
    sizes = [sorted(len(of) for of in some.parents.values()) for some in (forest, found.forest)]
    assert sizes[0] == sizes[1]
