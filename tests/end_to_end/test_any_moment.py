"""Whatever changes a zoo may be killed before any of its changes of the disk.

In `make test`, before the first changes of each kind; in `make evidence`, before any.
"""

import os
import re
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest

from vitarium import Blueprint, Zoo, grow, import_zoo, measure, merge
from vitarium.zoo.verify import verify

FIRST = 2
"""Changes of a kind: those of one function, of files whose names differ in ids and numbers alone."""


class Moments:
    """Copies of a folder, each as a process leaves it that is killed before its next change."""

    def __init__(self, folder, copies, most, monkeypatch):
        self.folder, self.copies, self.most = folder, copies, most
        self.kinds = Counter()
        self._lock = threading.RLock()  # epochs of several models are written side by side
        for place, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(place, name, self._watched(getattr(place, name)))

    def _watched(self, change):
        def changing(path, *others, **options):
            with self._lock:
                if Path(path).is_relative_to(self.folder):
                    name = Path(path).relative_to(self.folder).as_posix()
                    kind = change.__qualname__, re.sub(r"[0-9a-f]{8,}|\d+", "", name)
                    self.kinds[kind] += 1
                    if self.kinds[kind] <= self.most:
                        shutil.copytree(self.folder, self.copies / f"{len(self):03d}")
                return change(path, *others, **options)

        return changing

    def __len__(self):
        return self.kinds.total()

    def all(self):
        return sorted(self.copies.glob("*"))


@pytest.fixture(params=[FIRST, pytest.param(10**6, marks=pytest.mark.evidence)])
def moments(tmp_path, monkeypatch, request):
    """Starts to watch a zoo's folder."""
    (tmp_path / "copies").mkdir()
    return lambda folder: Moments(folder, tmp_path / "copies", request.param, monkeypatch)


def grown(zoo, tiny):
    plain = {"precision": "fp32", "compiled": False, "stacked": 1}
    grow(Blueprint.read(tiny), zoo, workers=0, progress=False, **plain)


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
    for copy in seen.all()[1 :: len(seen.all()) // 4]:
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
