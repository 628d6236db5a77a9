"""Whatever changes a zoo may be killed before any of its changes of the disk."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from vitarium import Blueprint, Zoo, grow, import_zoo, measure, merge
from vitarium.zoo.verify import verify


class Moments:
    """Copies of a folder, each as a process leaves it that is killed before its next change."""

    def __init__(self, folder, copies, monkeypatch):
        self.folder, self.copies = folder, copies
        self._lock = threading.RLock()  # epochs of several models are written side by side
        for place, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(place, name, self._watched(getattr(place, name)))

    def _watched(self, change):
        def changing(path, *others, **options):
            with self._lock:
                if Path(path).is_relative_to(self.folder):
                    self._copy()
                return change(path, *others, **options)

        return changing

    def _copy(self):
        shutil.copytree(self.folder, self.copies / f"{len(self):03d}")

    def __len__(self):
        return len(self.all())

    def all(self):
        return sorted(self.copies.glob("*"))


@pytest.fixture
def moments(tmp_path, monkeypatch):
    """Starts to watch a zoo's folder."""
    (tmp_path / "copies").mkdir()
    return lambda folder: Moments(folder, tmp_path / "copies", monkeypatch)


def grown(zoo, tiny):
    grow(Blueprint.read(tiny), zoo, workers=0, progress=False)


def weights(zoo):
    files = (zoo / "models").glob("*/checkpoints/*")
    return {file.relative_to(zoo): file.read_bytes() for file in files}


def assert_no_faults(seen):
    for copy in [*seen.all(), seen.folder]:
        if (copy / "zoo.json").exists():
            assert verify(copy, deep=True) == [], copy.name


def test_growing(tiny, tmp_path, moments):
    for stage in tiny["stages"].values():
        del stage["grid"]
    seen = moments(tmp_path / "zoo")
    grown(tmp_path / "zoo", tiny)
    assert_no_faults(seen)
    assert len(seen) > 3 * (1 + 2 * 3 + 1)
    for copy in seen.all()[:: len(seen) // 8]:
        grown(copy, tiny)
        assert weights(copy) == weights(tmp_path / "zoo")
        assert verify(copy, deep=True) == []


def test_training_that_diverges_where_only_the_last_epoch_is_kept(tiny, tmp_path, moments):
    del tiny["stages"]["finetune"]
    tiny["stages"]["pretrain"] |= {
        "optimizer": {"name": "sgd", "lr": 1e30},
        "checkpoints": "last",
        "epochs": 5,
    }
    seen = moments(tmp_path / "zoo")
    grown(tmp_path / "zoo", tiny)
    models = Zoo.open(tmp_path / "zoo").models()
    assert set(models["status"]) == {"diverged"}
    assert weights(tmp_path / "zoo")
    assert_no_faults(seen)


def test_importing(published, tmp_path, moments):
    seen = moments(tmp_path / "zoo")
    ids = import_zoo(published, tmp_path / "zoo")
    assert len(seen) > 4 * len(ids)
    assert_no_faults(seen)


def test_merging(grown_zoo, moments):
    seen = moments(grown_zoo.path)
    merge(grown_zoo, "uniform_soup", models=grown_zoo.ids()[:2])
    assert len(seen) >= 4
    assert_no_faults(seen)


def test_measuring(grown_zoo, moments):
    seen = moments(grown_zoo.path)
    for names in ("weight_norm", "accuracy"):
        measure(grown_zoo, names)
        grown_zoo.models()
    assert len(seen) >= 4
    assert_no_faults(seen)


@pytest.mark.parametrize("how", ["pack", "unpack"])
def test_packing(grown_zoo, moments, how):
    if how == "pack":
        grown_zoo.unpack()
    seen = moments(grown_zoo.path)
    getattr(grown_zoo, how)()
    assert len(seen) >= 14
    assert_no_faults(seen)
