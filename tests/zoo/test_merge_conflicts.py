"""Zoos made one where something is in the way: other bits, earlier copies, killed processes."""

import shutil
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from vitarium import Zoo, import_zoo, merge
from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.formats.foreign_zoo import ForeignZoo
from vitarium.operators._runner.plan import MergePlan
from vitarium.zoo import ModelFolder, combine, removal
from vitarium.zoo.combine import archive, merge_zoos
from vitarium.zoo.removal import remove
from vitarium.zoo.verify import verify
from zoo.test_combine import assert_whole, of_models, other_bits
from zoo.test_removal import Killed, parent_of, soup_of, weights


@pytest.fixture
def zoo(kept_zoo):
    """Two models, two children of each, and a soup of two children of the first."""
    merge(kept_zoo, "uniform_soup", models=kept_zoo.children(parent_of(kept_zoo)))
    return kept_zoo


def test_weights_of_another_training_do_not_replace_those_that_were_removed(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    remove(zoo, f"{parent}@2", keep_dependents=True)
    before = weights(zoo)
    for zoos, target in (([other], zoo), ([zoo], other), ([zoo, other], tmp_path / "c")):
        with pytest.raises(InvalidInput, match=rf"{parent}.*other weights of epochs 2"):
            merge_zoos(zoos, target)
    assert_whole(zoo, before)
    merge_zoos([other], zoo, prefer=zoo)
    assert_whole(zoo, before)


def test_weights_of_another_training_do_not_complete_what_is_preferred(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    remove(other, f"{parent}@2", keep_dependents=True)
    expected = of_models(weights(other), [parent])
    merge_zoos([other], zoo, prefer=other)
    assert of_models(weights(zoo), [parent]) == expected
    assert merge_zoos([other], zoo, prefer=other).copied == {}


def test_what_was_removed_of_other_bits_is_forgotten_once_a_zoo_is_preferred(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    for each in (zoo, other):
        each.remove([f"{parent}@{n}" for n in (0, 2)], keep_dependents=True)
    assert merge_zoos([other], zoo, prefer=other).copied.keys() == {parent}
    again = merge_zoos([other], zoo)
    assert (again.copied, again.conflicts) == ({}, {})


def test_an_archive_is_brought_up_to_date(zoo, tmp_path):
    before, parent = weights(zoo), parent_of(zoo)
    folder = zoo.folder(parent)
    lines = (folder.path / "epochs.jsonl").read_bytes()
    result = (folder.path / "result.json").rename(tmp_path / "result.json")
    files.write_lines(folder.path / "epochs.jsonl", [asdict(folder.epochs()[0])])
    copy = Zoo.open(archive(zoo, parent, out=tmp_path / "copy"))
    assert copy[parent].status == "training"
    (folder.path / "epochs.jsonl").write_bytes(lines)
    result.rename(folder.path / "result.json")
    zoo.tag(parent, "done")
    archive(zoo, parent, out=tmp_path / "copy")
    assert_whole(copy, of_models(before, [parent]))
    assert copy[parent].tags == ("done",)


def test_an_archive_is_no_place_for_other_bits_of_its_models(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    copy = Zoo.open(archive(zoo, parent, out=tmp_path / "copy"))
    before = weights(copy)
    with pytest.raises(InvalidInput, match=rf"{parent}.*other weights of epochs 2.*new folder"):
        archive(other, parent, out=tmp_path / "copy")
    assert_whole(copy, before)


def test_the_home_folder_is_where_people_expect_it(zoo, tmp_path, monkeypatch):
    other, parent = other_bits(zoo, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    target = f"~/{zoo.path.relative_to(tmp_path)}"
    with pytest.raises(InvalidInput, match="other bits"):  # and nothing is replaced
        merge_zoos([other], target)
    merge_zoos([other], target, prefer=target)
    assert verify(zoo.path) == []
    archive(zoo, parent, out="~/part.tar")
    assert (tmp_path / "part.tar").is_file()


def test_a_zoo_under_two_names_is_one(zoo, tmp_path):
    (tmp_path / "link").symlink_to(zoo.path)
    merged = merge_zoos([zoo, tmp_path / "link", zoo.path], tmp_path / "c")
    assert {*merged.copied} == {*zoo.ids()}


def test_what_another_process_does_until_the_zoo_is_held_counts(zoo, tmp_path, monkeypatch):
    other, _ = other_bits(zoo, tmp_path)
    copy = Zoo.open(shutil.copytree(other.path, tmp_path / "copy"))
    remove(copy, parent_of(zoo), keep_dependents=True)
    before = weights(other)

    def hold_late(stack, target, sources):
        shutil.rmtree(copy.path)
        shutil.copytree(zoo.path, copy.path)  # with the parent's other bits

    monkeypatch.setattr(combine, "_hold", hold_late)
    with pytest.raises(InvalidInput, match="other bits"):
        merge_zoos([copy], other)
    assert weights(other) == before


@pytest.mark.parametrize("then", ["merge", "remove", "tag"])
def test_a_model_whose_replacement_was_killed_is_not_lost(zoo, tmp_path, monkeypatch, then):
    before, parent = weights(zoo), parent_of(zoo)
    thin = Zoo.open(shutil.copytree(zoo.path, tmp_path / "thin"))
    remove(zoo, f"{parent}@0")
    remove(thin, f"{parent}@2", keep_dependents=True)
    left = weights(zoo)
    replace = Path.replace

    def dying(path, target):
        if Path(target) == zoo.folder(parent).path:
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            merge_zoos([thin], zoo)
    assert parent not in zoo  # between two moves of folders
    if then == "remove":
        soup = soup_of(zoo)
        remove(zoo, soup)
        assert weights(zoo) == {place: w for place, w in left.items() if place[0] != soup}
    elif then == "tag":
        zoo.tag(soup_of(zoo), "tagged")
        assert_whole(zoo, left)
    else:
        merge_zoos([thin], zoo)
        assert_whole(zoo, before)
    assert not [path for path in zoo.path.iterdir() if path.name.endswith("-before.tmp")]


def test_epochs_that_were_imported_into_different_zoos_come_together(tmp_path):
    states = {n: {"a": torch.full((3,), float(n))} for n in range(4)}
    zoos = []
    for name, numbers in (("a", (0, 1, 3)), ("b", (2, 3))):
        epochs = [ForeignEpoch(n, {"loss": float(n)}, lambda n=n: states[n]) for n in numbers]
        model = ForeignModel("model", "imported", epochs, 3)
        zoos.append(Zoo.create(tmp_path / name))
        import_zoo(ForeignZoo("checkpoint_table", tmp_path, (model,)), zoos[-1])
    for target in (tmp_path / "c", *zoos):
        merged = merge_zoos(zoos, target).zoo
        (id,) = merged.ids()
        assert merged.epochs(id)["loss"].tolist() == [0, 1, 2, 3]
        assert all(torch.equal(merged.state_dict(id, n)["a"], states[n]["a"]) for n in states)
        assert verify(merged.path, deep=True) == []
        assert merge_zoos(zoos, target).copied == {}


def test_a_soup_is_whole_though_an_ingredient_is_removed_while_it_is_made(kept_zoo, monkeypatch):
    children, computed = kept_zoo.children(parent_of(kept_zoo)), Event()
    plan_removal, compute = removal._planned, MergePlan.weights
    soup = Thread(target=merge, args=(kept_zoo, "uniform_soup"), kwargs={"models": children})

    def computing(plan, *args):
        weights = compute(plan, *args)
        computed.set()
        return weights

    def planning(*args):
        plan = plan_removal(*args)
        soup.start()
        assert computed.wait(60)
        return plan

    monkeypatch.setattr(MergePlan, "weights", computing)
    monkeypatch.setattr(removal, "_planned", planning)
    remove(kept_zoo, children[0], keep_dependents=True)
    soup.join()
    assert children[0] not in kept_zoo
    assert verify(kept_zoo.path, deep=True) == []
    assert kept_zoo.state_dict(soup_of(kept_zoo))


def test_nothing_is_removed_while_a_soup_is_written_that_builds_on_it(kept_zoo, monkeypatch):
    children, planned, write = kept_zoo.children(parent_of(kept_zoo)), Event(), ModelFolder.commit
    plan_removal, keep = removal._planned, {"keep_dependents": True}
    remover = Thread(target=remove, args=(kept_zoo, children[0]), kwargs=keep)

    def planning(*args):
        planned.set()
        return plan_removal(*args)

    def writing(folder, *args, **options):
        remover.start()
        assert not planned.wait(0.3)
        return write(folder, *args, **options)

    monkeypatch.setattr(removal, "_planned", planning)
    monkeypatch.setattr(ModelFolder, "commit", writing)
    merge(kept_zoo, "uniform_soup", models=children)
    remover.join()
    assert children[0] not in kept_zoo
    assert verify(kept_zoo.path, deep=True) == []
    assert kept_zoo.state_dict(soup_of(kept_zoo))
