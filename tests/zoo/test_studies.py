"""What lies in a zoo's folder `studies`: which files of it are given out, and which copies have them."""

import os

import pytest

from vitarium import Zoo, export
from vitarium.core.errors import UnknownName
from vitarium.zoo import studies
from vitarium.zoo.combine import archive, merge_zoos
from vitarium.zoo.removal import remove
from vitarium.zoo.verify import verify

PAGE, FOREST = "<title>Lineage of zoo</title>", "{}"


@pytest.fixture
def zoo(kept_zoo):
    folder = kept_zoo.path / studies.FOLDER
    folder.mkdir()
    studies.page_path(kept_zoo.path, "lineage").write_text(PAGE)
    studies.json_path(kept_zoo.path, "lineage").write_text(FOREST)
    return kept_zoo


def stems(files):
    return [file.stem for file in files]


def test_pages_and_lineages_are_found_by_name(zoo):
    folder = zoo.path / studies.FOLDER
    (folder / "a second one.html").write_text(PAGE)
    (folder / "lineage-mother.json").write_text(FOREST)
    (folder / "other.json").write_text(FOREST)
    assert stems(studies.pages(zoo.path)) == ["a second one", "lineage"]
    assert stems(studies.lineages(zoo.path)) == ["lineage-mother", "lineage"]
    assert studies.find_page(zoo.path, "lineage").read_text() == PAGE
    assert studies.find_lineage(zoo.path, "lineage-mother").is_file()
    with pytest.raises(UnknownName, match="did you mean 'lineage'"):
        studies.find_page(zoo.path, "linage")
    with pytest.raises(UnknownName):
        studies.find_lineage(zoo.path, "other")


def test_without_a_folder_there_are_none(kept_zoo):
    assert studies.pages(kept_zoo.path) == studies.lineages(kept_zoo.path) == []
    (kept_zoo.path / studies.FOLDER).write_text("no folder")
    assert studies.pages(kept_zoo.path) == []


@pytest.mark.parametrize("name", ["../secret", "..", "", ".", "/etc/passwd", "lineage.html", "\0"])
def test_no_name_leads_elsewhere(zoo, name):
    (zoo.path / "secret.html").write_text("secret")
    with pytest.raises(UnknownName):
        studies.find_page(zoo.path, name)


def test_links_out_of_the_folder_and_what_is_no_file_are_left_out(zoo, tmp_path):
    folder, secret = zoo.path / studies.FOLDER, tmp_path / "secret.html"
    secret.write_text("secret")
    (folder / "out.html").symlink_to(secret)
    (folder / "up.html").symlink_to(zoo.path / "zoo.json")
    (folder / "circle.html").symlink_to(folder / "circle.html")
    (folder / "nothing.html").symlink_to(folder / "not-there.html")
    (folder / "again.html").symlink_to(folder / "lineage.html")
    (folder / "below.html").mkdir()
    os.mkfifo(folder / "pipe.html")
    (folder / "<b>.html").write_text(PAGE)
    (folder / ".hidden.html").write_text(PAGE)
    assert stems(studies.pages(zoo.path)) == ["again", "lineage"]


def test_a_folder_that_is_a_link_out_of_the_zoo_has_none(kept_zoo, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "page.html").write_text("secret")
    (kept_zoo.path / studies.FOLDER).symlink_to(outside)
    assert studies.pages(kept_zoo.path) == []


def test_the_stamp_changes_with_what_is_written_and_removed(zoo):
    before = studies.stamp(zoo.path)
    assert studies.stamp(zoo.path) == before
    studies.page_path(zoo.path, "soups").write_text(PAGE)
    after = studies.stamp(zoo.path)
    assert after != before
    studies.json_path(zoo.path, "lineage").write_text("[] ")
    assert studies.stamp(zoo.path) != after
    studies.page_path(zoo.path, "soups").unlink()
    studies.json_path(zoo.path, "lineage").unlink()
    studies.page_path(zoo.path, "lineage").unlink()
    assert studies.stamp(zoo.path) not in (before, after)


def written(zoo):
    return {file.name: file.read_text() for file in (zoo.path / studies.FOLDER).glob("*")}


def test_a_copy_of_all_models_has_them_and_one_of_a_part_has_not(zoo, tmp_path):
    both = {"lineage.html": PAGE, "lineage.json": FOREST}
    copy = Zoo.open(archive(zoo, out=tmp_path / "copy"))
    assert written(copy) == both
    assert verify(copy.path) == verify(zoo.path) == []
    studies.page_path(zoo.path, "lineage").write_text("newer")
    archive(zoo, out=tmp_path / "copy")
    assert written(copy) == both | {"lineage.html": "newer"}
    part = Zoo.open(archive(zoo, zoo.ids()[0], out=tmp_path / "part"))
    assert written(part) == {}
    merged = merge_zoos([zoo, part], tmp_path / "merged").zoo
    assert written(merged) == {}
    export(zoo, "hub", out=tmp_path / "hub")
    assert written(Zoo.open(tmp_path / "hub")) == both | {"lineage.html": "newer"}
    export(zoo, "hub", out=tmp_path / "few", models=zoo.ids()[:1])
    assert written(Zoo.open(tmp_path / "few")) == {}


def test_they_stay_where_models_are_removed(zoo):
    before = written(zoo)
    remove(zoo, [zoo.ids()[0]], with_dependents=True)
    assert written(zoo) == before
