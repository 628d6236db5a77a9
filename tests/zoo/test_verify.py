"""`verify` finds whatever is damaged, missing or left over, and tells what is lost."""

import random
import re
import shutil
from contextlib import suppress
from itertools import pairwise

import pytest
import torch

from vitarium import Zoo
from vitarium.core import files
from vitarium.core.errors import CorruptFile, NotReadable
from vitarium.zoo.verify import verify


class Steps(list):
    """Notes each step of a progress."""

    def step(self, *step):
        self.append(step)


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


def files_of(zoo):
    return sorted(file for file in zoo.path.rglob("*") if file.is_file())


def one_of_each_kind(zoo):
    """Files of all kinds: names that differ in ids and numbers alone are one kind."""
    by_kind = {}
    for file in files_of(zoo):
        name = file.relative_to(zoo.path).as_posix()
        by_kind.setdefault(re.sub(r"[0-9a-f]{8,}|\d+", "", name), file)
    assert len(by_kind) >= 7
    return list(by_kind.values())


ALL = pytest.param(files_of, marks=pytest.mark.evidence)
"""The files of `make evidence`."""


def content(zoo):
    """Everything that is read from a zoo, bit by bit."""
    found = {}
    for id in zoo.ids():
        folder = zoo.folder(id)
        found[id] = (folder.spec(), folder.about(), folder.epochs(), folder.records())
        for epoch in folder.epochs():
            if epoch.checkpoint:
                for name, tensor in folder.weights(epoch.number).items():
                    found[id, epoch.number, name] = tensor.reshape(-1).view(torch.uint8).tolist()
    return found


@pytest.fixture
def child(zoo):
    """A model with a parent."""
    return next(id for id in zoo.ids() if zoo.spec(id).parent)


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_zoo_has_no_faults(zoo, deep):
    zoo.models()
    steps = Steps()
    assert verify(zoo.path, deep=deep, progress=steps) == []
    assert steps[-1] == ("models", 6, 6)
    zoo.unpack()
    assert verify(zoo.path, deep=deep) == []


@pytest.mark.parametrize("packed", [True, False])
def test_every_changed_byte_is_found_and_nothing_wrong_is_opened(zoo, packed):
    """Of a file of each kind the first byte, the last and one of each eighth, changed in a random way.

    `make evidence` flips every bit.
    """
    if not packed:
        zoo.unpack()
    zoo.models()
    whole = content(zoo)
    draw = random.Random(packed)
    for file in filter(lambda file: file.stat().st_size, one_of_each_kind(zoo)):
        size = file.stat().st_size
        bounds = [size * eighth // 8 for eighth in range(9)]
        positions = [draw.randrange(*part) for part in pairwise(bounds) if part[0] < part[1]]
        for position in (0, *positions, size - 1):
            assert_found(zoo, file, position, draw.randrange(1, 256), whole)
    assert content(zoo) == whole


def assert_found(zoo, file, position, change, whole):
    """That `verify` names a file with a changed byte, which is put back."""
    before = file.read_bytes()
    damaged = bytearray(before)
    damaged[position] ^= change
    file.write_bytes(damaged)
    faults = verify(zoo.path)
    where = file.relative_to(zoo.path).as_posix()
    assert any(where.startswith(fault.path) for fault in faults), where
    assert all(fault.fault and fault.lost for fault in faults)
    model = file.relative_to(zoo.path).parts[1] if where.startswith("models/") else None
    if model:
        assert_nothing_wrong(zoo, model, whole)
    file.write_bytes(before)


def assert_nothing_wrong(zoo, model, whole):
    """Whatever can still be read of a model is what was written."""
    folder = zoo.folder(model)
    for k, read in enumerate((folder.spec, folder.about, folder.epochs, folder.records)):
        with suppress(CorruptFile):
            assert read() == whole[model][k]
    tensors = [key for key in whole if isinstance(key, tuple) and key[0] == model]
    for epoch in {epoch for _, epoch, _ in tensors}:
        with suppress(CorruptFile):
            checkpoint = zoo.checkpoint(model, epoch)
            for name in [name for _, e, name in tensors if e == epoch]:
                with suppress(CorruptFile):
                    stored = checkpoint[name].reshape(-1).view(torch.uint8).tolist()
                    assert stored == whole[model, epoch, name]


@pytest.mark.parametrize("files_of", [one_of_each_kind, ALL])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_every_truncated_file_is_found(zoo, files_of, keep):
    zoo.models()
    for file in files_of(zoo):
        before = file.read_bytes()
        file.write_bytes(before[: int(len(before) * keep)])
        found = verify(zoo.path)
        assert any(file.relative_to(zoo.path).as_posix().startswith(f.path) for f in found), file
        file.write_bytes(before)


@pytest.mark.parametrize("files_of", [one_of_each_kind, ALL])
def test_every_missing_file_of_a_model_is_found(zoo, files_of):
    for file in files_of(zoo):
        before = file.read_bytes()
        file.unlink()
        # a model need not have been measured, or may just have ended; a recipe stands in each model
        if file.name in ("records.jsonl", "result.json"):
            continue
        if {"blueprints", "records"} & set(file.parts):
            continue
        assert verify(zoo.path), file
        file.write_bytes(before)


def test_a_damaged_base_names_what_builds_on_it(zoo, child):
    parent = zoo.spec(child).parent
    base = zoo.folder(parent).checkpoints.path(2)
    damaged = bytearray(base.read_bytes())
    damaged[-1] ^= 1
    base.write_bytes(damaged)
    for deep in (False, True):
        found = {fault.path: fault for fault in verify(zoo.path, deep=deep)}
        assert f"models/{parent}/checkpoints/epoch-0002.packed" in found
        builder = found[f"models/{child}/checkpoints/epoch-0000.packed"]
        assert f"builds on models/{parent}/checkpoints/epoch-0002.packed" in builder.fault
    assert "its weights" in builder.lost or "the weights of epoch 0" in builder.lost


@pytest.mark.parametrize("deep", [False, True])
def test_checkpoints_that_build_on_each_other_are_found(zoo, child, deep):
    parent = zoo.spec(child).parent
    checkpoints = zoo.folder(parent).checkpoints
    first, last = (zoo.state_dict(parent, epoch) for epoch in (0, 2))
    checkpoints.write(2, last, [(parent, 0)])
    checkpoints.write(0, first, [(parent, 2)])
    faults = {fault.path: fault.fault for fault in verify(zoo.path, deep=deep)}
    for id, epoch in ((parent, 0), (parent, 2), (child, 0)):
        assert "circle" in faults[f"models/{id}/checkpoints/epoch-{epoch:04d}.packed"]


def test_a_missing_parent_is_one_fault_that_names_what_comes_of_it(zoo, child):
    parent = zoo.spec(child).parent
    children = zoo.children(parent)
    builders = [
        f"models/{id}/checkpoints/epoch-{epoch:04d}.packed" for id in children for epoch in (0, 1)
    ]
    assert all((zoo.path / file).exists() for file in builders)
    shutil.rmtree(zoo.folder(parent).path)
    for deep in (False, True):
        (fault,) = verify(zoo.path, deep=deep)
        assert fault.path == f"models/{parent}"
        come = f"2 models come of it: {children[0]}, {children[1]}"
        assert fault.fault == f"it is missing; {come}; 4 of their checkpoints build on it"
        assert "restored" in fault.lost


def test_a_missing_parent_on_which_nothing_builds_costs_no_weights(zoo, child):
    parent = zoo.spec(child).parent
    zoo.unpack()
    shutil.rmtree(zoo.folder(parent).path)
    (fault,) = verify(zoo.path)
    assert (fault.path, fault.lost) == (
        f"models/{parent}",
        "their lineage; their weights are whole",
    )


def test_what_builds_on_damage_is_not_to_be_removed(zoo, child):
    base = zoo.folder(zoo.spec(child).parent).checkpoints.path(2)
    damaged = bytearray(base.read_bytes())
    damaged[-1] ^= 1
    base.write_bytes(damaged)
    for deep in (False, True):
        for fault in verify(zoo.path, deep=deep):
            is_damaged = zoo.path / fault.path == base
            assert ("remove the model and" in fault.lost) is is_damaged, fault


def test_of_a_newer_format_nothing_is_called_damaged(zoo):
    (zoo.path / "zoo.json").write_bytes(files.json_text({"format": "vitarium zoo", "version": 3}))
    (zoo.path / "models" / zoo.ids()[0] / "model.json").write_text("of a later version")
    (fault,) = verify(zoo.path)
    assert fault.path == "zoo.json"
    assert "newer vitarium" in fault.lost


def test_orphans_are_found(zoo, child):
    folder = zoo.folder(child)
    shutil.copy(folder.checkpoints.path(0), folder.checkpoints.packed(7))
    (folder.path / "notes.txt").write_text("x")
    (zoo.path / "thesis.txt").write_text("not in the models' folder: none of our business")
    (zoo.path / "models" / "mine").mkdir()
    (zoo.path / "models" / "mine" / "x").write_text("x")
    assert {fault.path for fault in verify(zoo.path)} == {
        f"models/{child}/checkpoints/epoch-0007.packed",
        f"models/{child}/notes.txt",
        "models/mine",
    }


def test_what_a_killed_process_leaves_behind_is_no_fault(zoo, child):
    folder = zoo.folder(child)
    (folder.path / ".epochs.jsonl.123.tmp").write_text("half")
    (folder.checkpoints.folder / ".epoch-0001.packed.123.tmp").write_text("half")
    shutil.rmtree(zoo.folder("f" * 12).path, ignore_errors=True)
    (zoo.path / "models" / ("f" * 12)).mkdir()
    (zoo.path / "models" / ("f" * 12) / ".model.json.1.tmp").write_text("")
    (folder.path / "result.json").unlink()
    assert verify(zoo.path) == []
    # both kinds of a checkpoint, as when `pack` is killed between writing and removing
    folder.checkpoints.write_plain(0, folder.weights(0))
    assert verify(zoo.path) == []
    assert Zoo.open(zoo.path).checkpoint(child, 0).is_packed is False


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_at_the_place_of_another_that_holds_the_same_is_found(zoo, child, deep):
    zoo.unpack()
    folder = zoo.folder(child)
    lines = {epoch.number: epoch.checkpoint for epoch in folder.epochs()}
    assert lines[0] == lines[1]
    shutil.copy(folder.checkpoints.plain(0), folder.checkpoints.plain(1))
    first, second = [zoo.folder(id) for id in zoo.ids() if not zoo.spec(id).parent]
    for other in (first, second):  # of one content, and each unfinished after the other's epoch 1
        other.commit(1, {}, None, {"model/x": torch.ones(1)})
        (other.path / "result.json").unlink()
        other.checkpoints.plain(2).unlink()
    shutil.copy(first.progress_file.path(1), second.progress_file.path(1))
    faults = {fault.path: fault.fault for fault in verify(zoo.path, deep=deep)}
    place = f"models/{child}/checkpoints/epoch-0001.safetensors"
    assert faults[place] == f"it is whole, but says that it is of model {child} after epoch 0"
    progress = second.progress_file.path(1).relative_to(zoo.path).as_posix()
    assert f"of model {first.path.name} after epoch 1" in faults[progress]


def test_a_training_without_its_progress_is_found(zoo, child):
    folder = zoo.folder(next(id for id in zoo.ids() if not zoo.spec(id).parent))
    folder.commit(1, {}, None, {"model/x": torch.ones(1)})
    (folder.path / "result.json").unlink()
    assert verify(zoo.path)  # epoch 2's checkpoint may be a leftover, but epoch 2 was finished
    (folder.path / "progress-0001.safetensors").unlink()
    faults = verify(zoo.path)
    assert any("progress-0001" in fault.path for fault in faults)


def test_what_may_not_be_read_is_told_and_no_damage(zoo, monkeypatch, child):
    file = zoo.folder(child).path / "epochs.jsonl"
    read = files.read

    def refusing(path):
        if path == file:
            raise NotReadable(path, "it belongs to ann", "ask her")
        return read(path)

    monkeypatch.setattr(files, "read", refusing)
    (fault,) = verify(zoo.path)
    assert fault.path == f"models/{child}/epochs.jsonl"
    assert "it belongs to ann" in fault.fault
    assert fault.lost == "unknown as long as it cannot be read"


@pytest.mark.parametrize(
    "changes",
    [
        {"ingredients": None},
        {"ingredients": [{"model": "../x"}]},
        {"ingredients": [{"model": "0123456789ab", "epoch": []}]},
        {"recipe": {"epochs": "many"}},
        {"parent": "../.."},
    ],
)
def test_a_description_that_was_sealed_with_nonsense_is_a_fault(zoo, changes):
    folder = next(folder for folder in map(zoo.folder, zoo.ids()) if folder.spec().parent)
    file = folder.path / "model.json"
    about = files.read_sealed(file)
    recipe = about["spec"]["recipe"] | changes.pop("recipe", {})
    about["spec"] |= {"recipe": recipe, **changes}
    files.write_sealed(file, {key: about[key] for key in about if key != "xxh3"})
    (fault,) = verify(zoo.path)
    assert fault.path == f"models/{folder.path.name}/model.json"
    assert fault.fault.startswith("no valid spec")


def test_a_description_that_was_sealed_as_another_kind_of_thing_is_a_fault(zoo):
    folder = zoo.folder(zoo.ids()[0])
    about = files.read_sealed(folder.path / "model.json")
    for value in (None, [], "x", 3):
        about["spec"] = value
        files.write_sealed(
            folder.path / "model.json", {key: about[key] for key in about if key != "xxh3"}
        )
        (fault,) = verify(zoo.path)
        assert fault.fault.startswith("no valid spec")


def test_deep_finds_a_recipe_that_is_not_the_one_of_its_id(zoo):
    folder = zoo.folder(zoo.ids()[0])
    about = files.read_sealed(folder.path / "model.json")
    about["spec"]["recipe"]["optimizer"]["lr"] = 9.0
    files.write_sealed(
        folder.path / "model.json", {key: about[key] for key in about if key != "xxh3"}
    )
    (fault,) = verify(zoo.path, deep=True)
    assert "its content has the id" in fault.fault
