"""Synthetic trees are what benchmarks take them for: known trees of models that can be opened."""

import csv
import importlib

import numpy as np
import pytest
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def synthetic():
    return importlib.import_module("synthetic_trees")


@pytest.fixture(scope="module")
def folder(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees") / "models"
    synthetic.write(folder, 14, 2)
    return folder


@pytest.fixture(scope="module")
def parents(folder):
    with (folder / "lineage.csv").open() as file:
        return {row["model"]: row["parent"] for row in csv.DictReader(file)}


def vector(folder, name):
    tensors = load_file(folder / f"{name}.safetensors")
    return np.concatenate([t.ravel() for t in tensors.values() if t.ndim > 1]).astype(float)


def root_of(name, parents):
    return root_of(parents[name], parents) if parents[name] else name


def test_every_file_has_a_row_and_every_tree_a_root(folder, parents):
    assert {path.stem for path in folder.glob("*.safetensors")} == parents.keys()
    assert len(parents) == 14
    assert sum(not parent for parent in parents.values()) == 2


def test_steps_are_as_long_as_is_said(synthetic, folder, parents):
    for name, parent in parents.items():
        if parent:
            root = np.linalg.norm(vector(folder, root_of(name, parents)))
            step = np.linalg.norm(vector(folder, name) - vector(folder, parent)) / root
            assert synthetic.STEPS[0] * 0.999 <= step <= synthetic.STEPS[1] * 1.001


def test_trees_are_at_right_angles_and_a_tree_is_not(folder, parents):
    one, other = (name for name, parent in parents.items() if not parent)
    unit = {name: vector(folder, name) for name in parents}
    unit = {name: v / np.linalg.norm(v) for name, v in unit.items()}
    assert abs(unit[one] @ unit[other]) < 0.1
    for name, parent in parents.items():
        if parent:
            assert unit[name] @ unit[parent] > 0.6


def test_trees_are_as_deep_as_is_said_and_begin_with_their_roots(synthetic):
    parents = synthetic.structure(500, 7, 3)
    assert [place for place, parent in enumerate(parents) if parent < 0] == list(range(7))
    depths = []
    for place, parent in enumerate(parents):
        assert parent < place
        depths.append(0 if parent < 0 else depths[parent] + 1)
    assert max(depths) == synthetic.DEEPEST


def test_a_seed_gives_the_same_bytes(synthetic, folder, tmp_path):
    synthetic.write(tmp_path / "again", 14, 2)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
