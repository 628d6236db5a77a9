"""A part of a zoo as a zoo of its own, and zoos made one: the same bits, and conflicts are named."""

import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest

from vitarium import Zoo, measure, merge
from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput, ZooInUse
from vitarium.zoo import records
from vitarium.zoo.combine import archive, merge_zoos
from vitarium.zoo.lock import held
from vitarium.zoo.records import Measured
from vitarium.zoo.removal import remove
from vitarium.zoo.verify import verify
from zoo.test_removal import Killed, killed_at, parent_of, soup_of, weights, write_again


@pytest.fixture
def zoo(kept_zoo):
    """Two models, two children of each, and a soup of two children of the first."""
    children = kept_zoo.children(parent_of(kept_zoo))
    merge(kept_zoo, "uniform_soup", models=children)
    kept_zoo.tag(children[0], "best")
    kept_zoo.note(children[1], "odd")
    kept_zoo.rename_stage("finetune", "tuned")
    text = b"name: tiny\n"
    blueprint = f"tiny-{hashlib.sha256(text).hexdigest()[:8]}.yaml"
    files.write(kept_zoo.path / "blueprints" / blueprint, text)
    pair = Measured(
        children[0], 1, children[1], 1, "cka", "{}", "", 0.9, "", "", "", 0, "", False, "x+y"
    )
    records.add(kept_zoo.path, [pair])
    return kept_zoo


def assert_whole(zoo, expected):
    assert verify(zoo.path, deep=True) == []
    assert weights(zoo) == expected


def of_models(state, ids):
    return {place: tensors for place, tensors in state.items() if place[0] in ids}


def test_an_archive_has_the_models_and_what_they_come_of(zoo, tmp_path):
    before, soup, parent = weights(zoo), soup_of(zoo), parent_of(zoo)
    expected = {soup, parent, *zoo.children(parent)}
    copy = Zoo.open(archive(zoo.path, soup[:8], out=tmp_path / "copy"))
    assert {*copy.ids()} == expected
    assert_whole(copy, of_models(before, expected))
    assert weights(zoo) == before
    table, original = copy.models().set_index("id"), zoo.models().set_index("id")
    assert table["stage"].to_dict() == original.loc[table.index, "stage"].to_dict()
    assert table["tags"].dropna().tolist() == ["best"]
    assert len(copy.records("cka")) == 1
    assert {*copy.records()["model"]} <= expected
    assert len(list((copy.path / "blueprints").iterdir())) == 1
    for id in expected:  # file by file, where nothing had to be packed anew
        for file in zoo.folder(id).path.rglob("*.*"):
            assert file.read_bytes() == (copy.path / file.relative_to(zoo.path)).read_bytes()


def test_without_ancestors_it_is_whole_and_knows_what_they_were(zoo, tmp_path):
    before, parent = weights(zoo), parent_of(zoo)
    children = zoo.children(parent)
    copy = Zoo.open(archive(zoo, children, out=tmp_path / "copy", ancestors=False))
    assert copy.ids() == children
    assert_whole(copy, of_models(before, children))
    assert {file.suffix for file in copy.path.glob("models/*/checkpoints/*")} == {".packed"}
    assert [path.name for path in (copy.path / "removed").iterdir()] == [parent]
    # which is noticed when the parent comes back
    merge_zoos([zoo], copy)
    assert_whole(copy, before)


def test_an_archive_is_a_file_where_its_name_ends_so(zoo, tmp_path):
    soup = soup_of(zoo)
    for name in ("part.tar", "part.tar.gz", "part.tgz"):
        file = archive(zoo, soup, out=tmp_path / name)
        with tarfile.open(file) as tar:
            tar.extractall(tmp_path / name.replace(".", "-"), filter="data")
        opened = Zoo.open(tmp_path / name.replace(".", "-") / "part")
        assert verify(opened.path) == []
        assert soup in opened
        file.unlink()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_of_no_models_nothing_is_made(zoo, tmp_path):
    with pytest.raises(InvalidInput, match="no model to copy"):
        zoo.archive([], out=tmp_path / "copy")
    with pytest.raises(InvalidInput, match="name the zoos"):
        merge_zoos([], tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_archive_is_no_place_for_other_models(zoo, tmp_path):
    out = archive(zoo, parent_of(zoo), out=tmp_path / "copy")
    with pytest.raises(InvalidInput, match="other models"):
        archive(zoo, next(id for id in zoo.ids() if id != parent_of(zoo)), out=out, ancestors=False)
    with pytest.raises(InvalidInput, match="without its epoch"):
        archive(zoo, f"{parent_of(zoo)}@0", out=tmp_path / "other")


def split(zoo, tmp_path):
    """Two zoos that have the pre-trained models in common, and children of one of them each."""
    first, second = (Zoo.open(shutil.copytree(zoo.path, tmp_path / name)) for name in "ab")
    parent = parent_of(zoo)
    remove(
        first,
        [id for id in zoo.ids() if zoo.folder(id).factors()["parent"] == parent],
        with_dependents=True,
    )
    remove(
        second,
        [id for id in zoo.ids() if zoo.folder(id).factors()["parent"] not in (None, parent)],
        with_dependents=True,
    )
    return first, second


def test_two_zoos_are_one(zoo, tmp_path):
    before = weights(zoo)
    first, second = split(zoo, tmp_path)
    assert len(first) < len(zoo) > len(second)
    planned = merge_zoos([first, second], tmp_path / "c", dry_run=True)
    assert not (tmp_path / "c").exists()
    merged = merge_zoos([first.path, str(second.path)], tmp_path / "c")
    assert planned.copied == merged.copied
    assert_whole(merged.zoo, before)
    assert merged.conflicts == {}
    assert len(merged.zoo.records()) == len(zoo.records())
    assert merged.zoo.models()["tags"].dropna().tolist() == ["best"]
    assert {*merged.zoo.models()["stage"]} == {*zoo.models()["stage"]}
    again = merge_zoos([first, second], tmp_path / "c")
    assert (again.copied, {*again.present}, again.records) == ({}, {*zoo.ids()}, 0)


def test_one_zoo_is_merged_into_another(zoo, tmp_path):
    before = weights(zoo)
    first, second = split(zoo, tmp_path)
    merge_zoos([first, second], first)
    assert_whole(first, before)


def other_bits(zoo, tmp_path, change=1e-3):
    """A copy of the zoo in which a parent was grown again with other bits."""
    other = Zoo.open(shutil.copytree(zoo.path, tmp_path / "other"))
    parent = parent_of(zoo)
    remove(other, parent, keep_dependents=True)
    write_again(other, zoo, parent, change)
    return other, parent


def test_models_with_other_bits_are_named_and_nothing_is_copied(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    planned = merge_zoos([zoo, other], tmp_path / "c", dry_run=True)
    assert {*planned.conflicts} == {parent}
    assert "other weights of epochs 2" in planned.conflicts[parent]
    with pytest.raises(InvalidInput, match=rf"1 model with other bits: {parent}.*prefer"):
        merge_zoos([zoo, other], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(InvalidInput, match="is not in"):
        merge_zoos([zoo, other], tmp_path / "c", prefer=tmp_path / "elsewhere")


@pytest.mark.parametrize("number", [0, 1])
def test_of_other_bits_those_of_one_zoo_are_taken(zoo, tmp_path, number):
    before = weights(zoo)
    other, parent = other_bits(zoo, tmp_path)
    preferred = (zoo, other)[number]
    merged = merge_zoos([zoo, other], tmp_path / "c", prefer=preferred).zoo
    expected = of_models(before, set(zoo.ids()) - {parent})
    expected |= of_models(weights(preferred), {parent})
    assert weights(merged) == expected
    # children of other bits notice it
    assert [fault.path for fault in verify(merged.path)] == ([f"models/{parent}"] if number else [])


def test_the_version_of_which_most_is_kept_is_taken(zoo, tmp_path):
    before = weights(zoo)
    thin = Zoo.open(shutil.copytree(zoo.path, tmp_path / "thin"))
    remove(thin, f"{parent_of(zoo)}@0")
    assert_whole(merge_zoos([thin, zoo], tmp_path / "c").zoo, before)
    merge_zoos([zoo], thin)
    assert_whole(thin, before)


def test_what_builds_on_replaced_weights_stays_the_same_bits(zoo, tmp_path):
    other, parent = other_bits(zoo, tmp_path)
    zoo.pack()
    measure(zoo, "alpha", models=parent)
    before, measured = weights(zoo), len(zoo.records())
    merge_zoos([other], zoo, prefer=other)
    assert 0 < len(zoo.records()) < measured  # nothing of the other bits
    expected = before | of_models(weights(other), {parent})
    assert weights(zoo) == expected != before
    faults = [fault.path for fault in verify(zoo.path, deep=True)]
    assert faults == [f"models/{parent}"]  # of its children, which started from other bits


@pytest.mark.parametrize("number", [0, 1])
def test_checkpoints_that_different_zoos_keep_come_together(zoo, tmp_path, number):
    before, parent = weights(zoo), parent_of(zoo)
    thin = [Zoo.open(shutil.copytree(zoo.path, tmp_path / name)) for name in "ab"]
    remove(thin[0], f"{parent}@0")
    remove(thin[1], f"{parent}@2", keep_dependents=True)
    target = thin[number]
    merged = merge_zoos(thin, target)
    assert {*merged.copied} == {parent}
    assert_whole(target, before)
    assert merge_zoos(thin, target).copied == {}


def test_words_beside_a_model_are_joined(zoo, tmp_path):
    other = Zoo.open(shutil.copytree(zoo.path, tmp_path / "other"))
    tagged = next(model.id for model in zoo if model.tags)
    other.tag(tagged, "fast")
    other.note(tagged, "seen elsewhere")
    merged = merge_zoos([zoo, other], tmp_path / "c").zoo
    assert merged[tagged].tags == ("best", "fast")
    assert merged[tagged].note == "seen elsewhere"


def test_damage_is_not_copied(zoo, tmp_path):
    file = zoo.folder(parent_of(zoo)).checkpoints.packed(2)
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CorruptFile):
        merge_zoos([zoo], tmp_path / "c")
    assert verify(tmp_path / "c", deep=True) == []


def test_what_is_copied_is_compared_with_what_was_read(zoo, tmp_path, monkeypatch):
    write = files.write

    def forgetful(path, content, **options):
        write(path, content, **options)
        if path.suffix == ".packed":
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(files, "write", forgetful)
    with pytest.raises(CorruptFile, match="just written"):
        merge_zoos([zoo], tmp_path / "c")


def test_zoos_in_use_are_left_as_they_are(zoo, tmp_path):
    with held(zoo.path):
        with pytest.raises(ZooInUse):
            merge_zoos([zoo], tmp_path / "c")
        with pytest.raises(ZooInUse):
            archive(zoo, out=tmp_path / "d")


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.evidence)])
@pytest.mark.parametrize("how", ["merge", "archive"])
def test_killed_at_any_moment_the_copy_is_whole_and_goes_on(zoo, tmp_path, how, stride):
    before = weights(zoo)
    first, second = split(zoo, tmp_path)
    parent, out, moment = parent_of(zoo), tmp_path / "c", 0
    children = zoo.children(parent)

    def copy():
        if how == "merge":
            merge_zoos([first, second], out)
        else:
            archive(zoo, children, out=out, ancestors=False)

    expected = before if how == "merge" else of_models(before, children)
    while True:
        shutil.rmtree(out, ignore_errors=True)
        try:
            with killed_at(moment):
                copy()
        except Killed:
            pass
        else:
            break
        if (out / "zoo.json").exists():
            assert weights(Zoo.open(out)).items() <= expected.items()
            assert [f for f in verify(out, deep=True) if not _is_of_lineage(f, how)] == []
        copy()
        assert_whole(Zoo.open(out), expected)
        moment += 1 if moment < 3 else stride
    assert moment > 30
    assert not [path for path in Path(out).iterdir() if path.name.endswith(".tmp")]


def _is_of_lineage(fault, how):
    """What an archive is without is written down last."""
    return how == "archive" and "is missing" in fault.fault
