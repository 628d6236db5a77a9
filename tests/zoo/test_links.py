"""Links in someone else's zoo: they are read through, and nothing behind them is touched."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from vitarium import Zoo
from vitarium.core import files
from vitarium.core.errors import CorruptFile, LeadsOutside
from vitarium.core.scratch import disk_buffer
from vitarium.measures._runner.cache import Cache
from vitarium.zoo import _index as index
from vitarium.zoo import growth_status, records
from vitarium.zoo.verify import verify


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


def moved_out(zoo, name):
    """Put a folder of the zoo elsewhere and a link in its place; gives the folder."""
    folder, outside = zoo.path / name, zoo.path.parent / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    return outside


def content(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(params=["models", "models/ID", "models/ID/checkpoints"])
def outside(request, zoo):
    """A part of the zoo that lies elsewhere."""
    return moved_out(zoo, request.param.replace("ID", zoo.ids()[0]))


@pytest.mark.parametrize("how", ["pack", "unpack"])
def test_neither_packing_nor_unpacking_changes_what_lies_outside(zoo, how):
    if how == "pack":
        zoo.unpack()
    outside = moved_out(zoo, f"models/{zoo.ids()[0]}/checkpoints")
    before = content(outside)
    with pytest.raises(LeadsOutside, match="link that leads out"):
        getattr(zoo, how)()
    assert content(outside) == before


def test_what_lies_outside_is_listed_read_and_verified(zoo, outside):
    before = content(outside)
    assert len(zoo.models()) == 6
    assert all(zoo.state_dict(id) for id in zoo.ids())
    assert verify(zoo.path) == []
    assert content(outside) == before


@pytest.mark.parametrize("part", ["models", "models/ID"])
def test_no_model_is_continued_outside(zoo, part):
    id = zoo.ids()[0]
    folder = zoo.folder(id)
    (folder.path / ".half.1.tmp").write_bytes(b"")
    outside = moved_out(zoo, part.replace("ID", id))
    before = content(outside)
    for change in (
        folder.sweep,
        lambda: folder.commit(9, {}, {"w": torch.ones(2)}, {"w": torch.ones(2)}),
        lambda: folder.commit(9, {}, None, None),
        lambda: folder.finish("finished"),
        lambda: folder.begin(folder.spec(), folder.about()),
    ):
        with pytest.raises(LeadsOutside):
            change()
    assert content(outside) == before


def test_a_file_that_is_a_link_is_replaced_itself(zoo):
    """As the hub's cache has them: what they lead to stays."""
    blobs = zoo.path.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(f for f in zoo.path.rglob("*") if f.is_file()):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    before, weights = content(blobs), {id: zoo.state_dict(id) for id in zoo.ids()}
    zoo.unpack()
    zoo.pack()
    assert content(blobs) == before
    for id, own in weights.items():
        assert all(torch.equal(tensor, zoo.state_dict(id)[name]) for name, tensor in own.items())


def test_an_index_that_lies_outside_is_not_used_and_not_written(zoo):
    index.remove(zoo.path)
    outside = zoo.path.parent / "outside"
    outside.mkdir()
    (zoo.path / "index").symlink_to(outside)
    assert len(zoo.models()) == 6
    assert content(outside) == {}
    zoo.reindex()
    assert outside.is_dir()


@pytest.mark.parametrize("part", ["records", "cache", "blueprints"])
def test_nothing_is_added_outside(zoo, part, tiny, write_blueprint):
    from vitarium import Blueprint

    shutil.rmtree(zoo.path / part, ignore_errors=True)
    outside = zoo.path.parent / "outside"
    outside.mkdir()
    (zoo.path / part).symlink_to(outside)
    do = {
        "records": lambda: records.add(zoo.path, [_measured(zoo)]),
        "cache": lambda: Cache(zoo.path).put({"w": torch.ones(2)}, "predictions", "x"),
        "blueprints": lambda: zoo.add_blueprint(Blueprint.load(write_blueprint(tiny))),
    }
    if part == "cache":  # it lies elsewhere where the zoo has no place for it
        do[part]()
        with pytest.raises(LeadsOutside):
            disk_buffer(zoo.path / part)
    else:
        with pytest.raises(LeadsOutside):
            do[part]()
    assert content(outside) == {}


@pytest.mark.parametrize(
    "name", [".lock", ".holder.json", "zoo.json", "timeline.json", "growth.json"]
)
def test_a_link_does_not_give_other_files_away(zoo, name):
    outside = zoo.path.parent / "diary.txt"
    outside.write_text("dear diary")
    shutil.copy(zoo.path / "zoo.json", zoo.path.parent / "mark")
    (zoo.path / name).unlink(missing_ok=True)
    (zoo.path / name).symlink_to(outside if name != "zoo.json" else zoo.path.parent / "mark")
    if name == ".lock":
        with pytest.raises(LeadsOutside):
            zoo.unpack()
    else:
        Zoo.create(zoo.path).unpack()
    files.write_json(zoo.path / "timeline.json", {})
    facts = {"name": "tiny", "host": "here", "pid": 1, "started": 1.0, "beat": 2.0, "workers": 1}
    growth_status.write(zoo.path, growth_status.GrowthStatus(**facts, stages=[]))
    assert outside.read_text() == "dear diary"


def test_a_link_in_the_place_of_a_file_on_its_way_is_not_followed(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    (tmp_path / f".x.json.{os.getpid()}.tmp").symlink_to(diary)
    files.write_json(tmp_path / "x.json", [1])
    assert diary.read_text() == "dear diary"
    assert files.read_json(tmp_path / "x.json") == [1]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("parent", ["../../outside", "/outside", "0123456789ab\n", ""])
def test_no_parent_is_a_path(zoo, parent):
    folder = zoo.folder(zoo.ids()[0])
    value = files.read_sealed(folder.path / "model.json")
    value["spec"]["parent"] = parent
    files.write_sealed(folder.path / "model.json", value)
    with pytest.raises(CorruptFile, match="parent"):
        folder.spec()


def test_no_name_of_a_model_is_a_path(zoo):
    from vitarium.core.errors import UnknownName

    (zoo.path.parent / "elsewhere").mkdir()
    for name in ("../../elsewhere", str(zoo.path.parent / "elsewhere"), "", "a" * 11 + "\n"):
        with pytest.raises(UnknownName):
            zoo.folder(name)


def _measured(zoo):
    from vitarium.zoo.records import Measured

    of_what = ("test", 10, "images", False, "weights")
    return Measured(zoo.ids()[0], 1, None, None, "x", "{}", "", 0.5, "", "digits", *of_what)


def test_where_the_folder_lies_itself_does_not_matter(zoo, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(zoo.path)
    assert Zoo.open(Path(link)).unpack().converted > 0
