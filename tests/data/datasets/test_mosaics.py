"""Mosaics of real images, and what training on images with several labels does."""

import pytest
import torch

import vitarium
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidData
from vitarium.core.registry import section
from vitarium.data.augmentations.standard import Standard, standard
from vitarium.data.base import DataFolders
from vitarium.data.load import load
from vitarium.data.loader import Batches, stacked_batches
from vitarium.engine.check import ModelCheck
from vitarium.testing import check_dataset
from vitarium.training import train
from vitarium.zoo import ModelFolder


def mosaics(**settings):
    return load(section("dataset", {"name": "mosaics", "base": "digits", **settings}))


def test_the_contract_of_data_sets_holds():
    check_dataset("mosaics")


def test_tiles_are_images_of_the_base_and_labels_their_classes():
    digits, data = load(section("dataset", "digits")), mosaics(repeats=2)
    label_of = {i.numpy().tobytes(): int(c) for i, c in zip(digits.train.images, digits.train.labels, strict=True)}  # fmt: skip
    assert len(data.train) == 2 * (len(digits.train) // 4)
    for mosaic, labels in list(zip(data.train.images, data.train.labels, strict=True))[:50]:
        tiles = [mosaic[:, y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
        classes = {label_of[tile.contiguous().numpy().tobytes()] for tile in tiles}
        assert classes == set(labels.nonzero()[:, 0].tolist())
    reseeded = mosaics(repeats=2, mosaic_seed=1).train.images
    assert not torch.equal(reseeded, data.train.images)


def test_images_that_are_decoded_make_the_same_mosaics():
    from vitarium.data.datasets.mosaics import _joined

    images = torch.arange(8 * 3 * 4 * 4, dtype=torch.uint8).view(8, 3, 4, 4)
    numbers = torch.tensor([[0, 3, 5, 1], [7, 2, 2, 6]])
    lazily = _joined([*images], numbers, 2)
    assert torch.equal(torch.stack([lazily[0], lazily[1]]), _joined(images, numbers, 2))


def test_batches_have_rows_of_labels_and_mix_them():
    data = mosaics()
    augmentation = standard(Standard(mixup=1.0), (1, 16, 16), 10)
    members = [Batches(data, augmentation, (1, 16, 16), 16, seed) for seed in (0, 1)]
    stacked = next(stacked_batches(members, 1))
    assert stacked.labels.shape == stacked.targets.shape == (2, 16, 10)
    for k, member in enumerate(members):
        batch = next(member.train(1))
        assert batch.labels.dtype == torch.bool
        assert torch.equal(batch.labels, stacked.labels[k])
        hot = batch.labels.float()
        share = ((batch.targets - hot.flip(0)) / (hot - hot.flip(0)))[hot != hot.flip(0)]
        torch.testing.assert_close(share, share[:1].expand_as(share))  # one for the batch
    (scored, *_) = members[0].score("val")
    assert torch.equal(scored.targets, scored.labels.float())


@pytest.mark.parametrize("setting", [{"imbalance": 10}, {"label_noise": 0.1}])
def test_what_changes_single_labels_is_refused(setting):
    with pytest.raises(InvalidData, match="images of 'mosaics' have several labels"):
        mosaics(**setting)
    assert len(mosaics(base={"name": "digits", **setting}).train) > 0


def blueprint(**changes):
    architecture = {"name": "vit", "img_size": 16, "patch_size": 8, "in_chans": 1, "embed_dim": 8,
                    "depth": 1, "num_heads": 1}  # fmt: skip
    stage = {"architecture": architecture, "data": {"name": "mosaics", "base": "digits"}}
    stage |= {"objective": "multilabel", "epochs": 1, "batch_size": 32, "checkpoints": "last"}
    return {"name": "x", "stages": {"a": stage | changes}}


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"objective": "supervised"}, "objective: .* choose `objective: multilabel`"),
        ({"sampling": "balanced"}, "sampling: images of 'mosaics' have several labels"),
        (
            {"data": {"name": "mosaics", "base": "digits", "label_noise": 0.1}},
            "data: .*label_noise",
        ),
    ],
)
def test_what_needs_single_labels_is_seen_before_training(changes, factor):
    with pytest.raises(InvalidConfig, match=factor):
        vitarium.plan(blueprint(**changes), check=ModelCheck())


def test_models_learn_several_labels_and_are_scored_by_precision(tmp_path):
    values = blueprint(early_stopping={"metric": "val_map", "patience": 3})
    values["stages"]["b"] = blueprint(objective="simclr")["stages"]["a"]
    for spec in vitarium.plan(values).models:
        folder = ModelFolder(tmp_path / spec.id)
        train(spec, folder)
        metrics = folder.epochs()[-1].metrics
        name = "test_map" if spec.recipe.objective.name == "multilabel" else "test_knn_map"
        assert 0.2 < metrics[name] < 1
        assert "test_accuracy" not in metrics


def test_measures_of_single_labels_are_refused_and_images_have_rows_of_labels(grown_zoo):
    data = {"name": "mosaics", "base": "digits"}
    model = grown_zoo.ids()[0]
    images = grown_zoo.data(model, split="val", data=data)
    assert images[0][1].shape == (10,)
    assert images.labels.dtype == torch.bool
    measured = vitarium.measure(grown_zoo, "accuracy", models=[model], data=data)
    assert measured["refused"].str.contains("images of 'mosaics' have several labels").all()


def test_a_function_may_give_several_labels():
    from vitarium.data._function_images import split_of

    labels = torch.tensor([[True, False], [True, True]])
    split = split_of("x", "train", (torch.zeros(2, 4, 4).numpy(), labels.numpy()))
    assert torch.equal(split.labels, labels)
    with pytest.raises(InvalidData, match=r"or bool \[n, classes\]"):
        split_of("x", "train", (torch.zeros(2, 4, 4).numpy(), labels.float().numpy()))


def test_parquet_with_lists_of_labels_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    (tmp_path / "rows").mkdir()
    several = datasets.List(datasets.ClassLabel(names=["a", "b", "c"]))
    features = datasets.Features({"image": datasets.Image(), "labels": several})
    rows = {"train": [[0], [0, 1], [], [1]], "test": [[2, 0], [1]]}
    for part, labels in rows.items():
        images = [Image.new("RGB", (4, 4), (number, 0, 0)) for number in range(len(labels))]
        table = datasets.Dataset.from_dict({"image": images, "labels": labels}, features=features)
        table.to_parquet(str(tmp_path / "rows" / f"{part}.parquet"))
    chosen = section("dataset", {"name": "hf", "folder": "rows", "label_column": "labels"})
    data = chosen(DataFolders(tmp_path))
    assert data.classes == ("a", "b", "c")
    assert data.test.labels.tolist() == [[True, False, True], [False, True, False]]
    assert len(data.train) + len(data.val) == 4
    for image, labels in zip(data.train.images, data.train.labels, strict=False):
        assert labels.nonzero()[:, 0].tolist() == sorted(rows["train"][int(image[0].max())])


def test_evaluation_sets_have_labels_of_the_same_kind():
    from vitarium.training._evaluation_images import classes_among

    with pytest.raises(InvalidData, match="cannot be compared"):
        classes_among(mosaics(), load(section("dataset", "digits")), "digits")
