"""Models and checkpoints are removed; what stays is whole, wherever that is stopped."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vitarium import Zoo, merge
from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput, LeadsOutside, UnknownName, ZooInUse
from vitarium.measures._runner.cache import Cache
from vitarium.zoo import About, records
from vitarium.zoo.lock import held
from vitarium.zoo.removal import remove
from vitarium.zoo.verify import verify


@pytest.fixture
def zoo(kept_zoo):
    """Two models, two children of each, and a soup of two children of the first."""
    parent = parent_of(kept_zoo)
    merge(kept_zoo, "uniform_soup", models=kept_zoo.children(parent))
    return kept_zoo


def parent_of(zoo):
    return next(id for id in zoo.ids() if zoo.folder(id).factors()["stage"] == "pretrain")


def soup_of(zoo):
    return next(id for id in zoo.ids() if zoo.folder(id).factors()["operator"])


def weights(zoo):
    return {
        (id, epoch.number): {
            name: tensor.reshape(-1).view(torch.uint8).tolist()
            for name, tensor in zoo.state_dict(id, epoch.number).items()
        }
        for id in zoo.ids()
        for epoch in zoo.folder(id).epochs()
        if epoch.checkpoint
    }


def assert_whole(zoo, expected):
    assert verify(zoo.path, deep=True) == []
    assert weights(zoo) == expected
    assert set(zoo.models()["id"]) == {id for id, _ in expected}


def of_models(state, ids):
    return {place: tensors for place, tensors in state.items() if place[0] in ids}


def test_a_model_on_which_nothing_depends_is_removed(zoo):
    soup, before = soup_of(zoo), weights(zoo)
    removal = remove(zoo.path, soup[:8])
    assert removal.models == (soup,)
    assert (removal.dependents, removal.rebased) == ({}, ())
    assert removal.nbytes > 0
    assert_whole(zoo, of_models(before, set(zoo.ids()) - {soup}))
    assert soup not in zoo


def test_what_comes_of_a_model_is_named_and_nothing_removed(zoo):
    parent, before = parent_of(zoo), weights(zoo)
    children = zoo.children(parent)
    with pytest.raises(InvalidInput, match=r"2 models depend on what is to be removed") as refused:
        remove(zoo, parent)
    assert f"{children[0]} (a child of {parent}@2)" in str(refused.value)
    with pytest.raises(InvalidInput, match=r"made from"):
        remove(zoo, children[0])
    assert_whole(zoo, before)


def test_dependents_stay_bit_for_bit_without_what_they_were_built_on(zoo):
    parent, before = parent_of(zoo), weights(zoo)
    children, rest = zoo.children(parent), set(zoo.ids()) - {parent}
    removal = remove(zoo, parent, keep_dependents=True)
    assert {*removal.dependents} == {*children}
    assert {*removal.rebased} == {CheckpointRef(id, epoch) for id in children for epoch in (0, 1)}
    assert_whole(zoo, of_models(before, rest))
    assert {file.suffix for file in zoo.path.glob("models/*/checkpoints/*")} == {".packed"}
    zoo.unpack(), zoo.pack()
    assert_whole(zoo, of_models(before, rest))


def test_dependents_are_removed_with_it(zoo):
    parent, before = parent_of(zoo), weights(zoo)
    gone = {parent, *zoo.children(parent), soup_of(zoo)}
    removal = remove(zoo, parent, with_dependents=True)
    assert {*removal.models} == gone
    assert removal.models[-1] == parent
    assert_whole(zoo, of_models(before, {id for id, _ in before} - gone))
    assert len(zoo) == 3


def test_a_condition_chooses_and_a_dry_run_removes_nothing(zoo):
    before = weights(zoo)
    removal = remove(zoo, where="stage = 'pretrain'", dry_run=True, with_dependents=True)
    assert {*removal.models} == {*zoo.ids()}
    assert weights(zoo) == before
    assert not (zoo.path / "removed").exists()
    with pytest.raises(InvalidInput, match="say which models to remove"):
        remove(zoo)
    with pytest.raises(InvalidInput, match="choose one of them"):
        remove(zoo, zoo.ids()[0], with_dependents=True, keep_dependents=True)
    with pytest.raises(UnknownName):
        remove(zoo, "f" * 12)


def test_numbers_and_cached_passes_of_the_model_go(zoo):
    soup, parent = soup_of(zoo), parent_of(zoo)
    cache = Cache(zoo.path)
    for id in (soup, parent):
        cache.put({"logits": torch.ones(3)}, "predictions", f"{id}@0", "content", "images")
        files.write_sealed(
            zoo.path / "cache" / "explorer" / f"{id}.json", {"key": ["behavior", id]}
        )
    numbers = zoo.records()
    assert {*numbers["model"]} == {*zoo.ids()} - {soup}
    leaf = zoo.children(next(id for id in zoo.ids() if id != parent and zoo.children(id)))[0]
    removal = remove(zoo, [soup, leaf])
    assert removal.records == 1
    after = zoo.records()
    assert len(after) < len(numbers)
    assert leaf not in {*after["model"]}
    assert cache.get("predictions", f"{soup}@0", "content", "images") is None
    assert cache.get("predictions", f"{parent}@0", "content", "images") is not None
    assert [f.stem for f in (zoo.path / "cache" / "explorer").iterdir()] == [parent]
    assert len(list((zoo.path / "records").iterdir())) == 1


def test_weights_of_single_epochs_are_removed(zoo):
    parent, before = parent_of(zoo), weights(zoo)
    child = zoo.children(parent)[0]
    with pytest.raises(InvalidInput, match="made from"):
        remove(zoo, f"{child}@1")
    removal = remove(zoo, [f"{parent}@0", f"{child}@0"])
    assert removal.checkpoints == (CheckpointRef(parent, 0), CheckpointRef(child, 0))
    expected = {p: w for p, w in before.items() if p not in {(parent, 0), (child, 0)}}
    assert_whole(zoo, expected)
    assert not list(zoo.folder(parent).checkpoints.folder.glob("epoch-0000*"))
    with pytest.raises(InvalidInput, match="no weights of epoch 0"):
        zoo.state_dict(parent, 0)
    # what its children started from
    remove(zoo, f"{parent}@2", keep_dependents=True)
    assert verify(zoo.path, deep=True) == []
    assert weights(zoo) == {place: w for place, w in expected.items() if place != (parent, 2)}


def test_an_unfinished_model_is_removed_whole_or_not_at_all(zoo):
    child = soup_of(zoo)
    (zoo.folder(child).path / "result.json").unlink()
    with pytest.raises(InvalidInput, match="unfinished"):
        remove(zoo, f"{child}@0")
    remove(zoo, child)
    assert child not in zoo
    assert verify(zoo.path) == []


def test_a_zoo_that_is_in_use_is_left_as_it_is(zoo):
    before = weights(zoo)
    with held(zoo.path), pytest.raises(ZooInUse):
        remove(zoo, soup_of(zoo))
    assert weights(zoo) == before


def test_nothing_goes_where_what_builds_on_it_cannot_be_read(zoo):
    parent = parent_of(zoo)
    file = zoo.folder(zoo.children(parent)[0]).checkpoints.packed(0)
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CorruptFile):
        remove(zoo, parent, keep_dependents=True)
    assert parent in zoo


def test_a_damaged_model_can_be_removed(zoo):
    soup = soup_of(zoo)
    (zoo.folder(soup).path / "model.json").write_text("{}")
    remove(zoo, soup)
    assert verify(zoo.path, deep=True) == []


def test_a_model_behind_a_link_stays(zoo, tmp_path):
    soup = soup_of(zoo)
    outside = Path(shutil.move(zoo.folder(soup).path, tmp_path / "outside"))
    zoo.folder(soup).path.symlink_to(outside)
    with pytest.raises(LeadsOutside):
        remove(zoo, soup)
    assert (outside / "model.json").exists()


class Killed(BaseException):
    pass


@contextmanager
def killed_at(moment):
    """The process ends before the disk is changed for the n-th time; nothing is touched after."""
    changes = []

    def dying(do):
        def change(*args, **options):
            if Path(args[0]).name == ".holder.json":  # the lock goes with the process
                return do(*args, **options)
            if len(changes) >= moment:
                raise Killed
            changes.append(args)
            return do(*args, **options)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        yield changes


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.evidence)])
@pytest.mark.parametrize("what", ["parent", "family", "epochs"])
def test_killed_at_any_moment_the_zoo_is_whole_and_goes_on(zoo, what, stride, tmp_path):
    parent, before = parent_of(zoo), weights(zoo)
    child = zoo.children(parent)[0]
    models = [f"{parent}@0", f"{parent}@2", f"{child}@0"] if what == "epochs" else [parent]
    options = {"with_dependents": True} if what == "family" else {"keep_dependents": True}
    numbered = {*zoo.records()["model"]}
    start, moment = shutil.copytree(zoo.path, tmp_path / "start"), 0
    while True:
        shutil.rmtree(zoo.path)
        shutil.copytree(start, zoo.path)
        try:
            with killed_at(moment):
                remove(zoo, models, **options)
        except Killed:
            pass
        else:
            break
        assert verify(zoo.path, deep=True) == [], moment
        assert weights(zoo).items() <= before.items()
        left = [name for name in models if _is_left(zoo, name)]
        if left:
            remove(zoo, left, **options)
        else:
            remove(zoo, soup_of(zoo)) if what != "family" else None
        assert verify(zoo.path, deep=True) == []
        assert weights(zoo).items() <= before.items()
        assert {*zoo.records()["model"]} == numbered & {*zoo.ids()}
        moment += 1 if moment < 4 else stride
    assert moment > 12
    assert verify(zoo.path, deep=True) == []


def _is_left(zoo, name):
    try:
        return bool(zoo.at(name))
    except InvalidInput:
        return False


def test_numbers_of_models_that_stay_survive_a_removal_that_is_repeated(zoo, monkeypatch):
    """Killed before the old file was removed, beside which the new one lies."""
    leaf = zoo.children(parent_of(zoo))[1]
    expected = {*zoo.records("loss")["model"]} - {leaf}
    with monkeypatch.context() as patch:
        patch.setattr(files, "unlink", lambda path: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            records.remove(zoo.path, [leaf])
    assert len(list((zoo.path / "records").iterdir())) == 2
    for _ in range(2):
        records.remove(zoo.path, [leaf])
        assert {*zoo.records("loss")["model"]} == expected
        assert len(list((zoo.path / "records").iterdir())) == 1


def test_damage_in_what_is_remembered_is_found(zoo):
    parent = parent_of(zoo)
    remove(zoo, parent, keep_dependents=True)
    for file in sorted((zoo.path / "removed" / parent).iterdir()):
        content = file.read_bytes()
        for position in range(0, len(content), len(content) // 9):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            assert f"removed/{parent}" in [fault.path for fault in verify(zoo.path)], position
        file.write_bytes(content)
    assert verify(zoo.path) == []


def write_again(zoo, backup, id, change):
    """A model with the spec and the weights of one in another zoo, or other weights."""
    source, folder = backup.folder(id), zoo.folder(id)
    folder.begin(source.spec(), About(10, tuple("0123456789"), {}))
    for epoch in source.epochs():
        state = source.weights(epoch.number) if epoch.checkpoint else None
        if state and epoch.number:
            state = {name: tensor + change for name, tensor in state.items()}
        folder.commit(epoch.number, {}, state, None)
    folder.finish("finished")


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_a_model_that_is_there_again_says_whether_it_has_the_same_bits(zoo, tmp_path, change):
    backup = Zoo.open(shutil.copytree(zoo.path, tmp_path / "backup"))
    parent = parent_of(zoo)
    children = zoo.children(parent)
    remove(zoo, parent, keep_dependents=True)
    write_again(zoo, backup, parent, change)
    message = zoo.folder(parent).result()["message"]
    assert message == (
        "not the weights that it had before it was removed (epochs 2)" if change else ""
    )
    assert not (zoo.path / "removed" / parent).exists()
    faults = verify(zoo.path, deep=True)
    assert [fault.path for fault in faults] == ([f"models/{parent}"] if change else [])
    assert all(id in faults[0].fault for id in children if change)


def test_children_notice_that_their_parent_has_other_bits(zoo, tmp_path):
    parent = parent_of(zoo)
    child = zoo.children(parent)[0]
    remove(zoo, soup_of(zoo))
    backup = Zoo.open(shutil.copytree(zoo.path, tmp_path / "backup"))
    remove(zoo, child)
    write_again(zoo, backup, child, 0.0)  # which writes down what it started from
    described = files.read_sealed(zoo.folder(child).path / "model.json")
    assert described["sources"] == {f"{parent}@2": backup.folder(parent).checkpoint(2)[1]}
    remove(zoo, parent, keep_dependents=True)
    assert verify(zoo.path) == []
    write_again(zoo, backup, parent, 1e-3)
    (fault,) = verify(zoo.path)
    assert fault.path == f"models/{parent}"
    other = [id for id in backup.children(parent) if id != child]
    come = ", ".join(sorted([child, *other]))
    assert fault.fault == f"after epoch 2 it has other weights than 2 models started from: {come}"
    assert "remove" not in fault.lost
