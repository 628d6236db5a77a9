"""Decoded images are kept on disk, shared, checked, and made anew when they are damaged."""

import shutil

import pytest
import torch

from vitarium.core import files
from vitarium.core.errors import DamagedCache, InvalidData
from vitarium.core.registry import section
from vitarium.data import load as datasets
from vitarium.data._image_cache import from_cache
from vitarium.data.load import load


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    datasets._load.cache_clear()
    yield tmp_path / "cache" / "decoded"
    datasets._load.cache_clear()


def made(times, name="ones"):
    """Keep two ones, counting how often they are made."""

    def fill(allocate):
        times.append(1)
        allocate("values", (2,), torch.int64).fill_(1)
        return {"note": "hello"}

    return from_cache(name, {"size": 2}, fill)


def test_what_is_kept_is_made_once():
    times = []
    first, second = made(times), made(times)
    assert len(times) == 1
    for found in (first, second):
        assert found.tensors["values"].tolist() == [1, 1]
        assert found.about == {"note": "hello"}


def test_writing_to_it_changes_nothing_on_disk():
    times = []
    made(times).tensors["values"].zero_()
    assert made(times).tensors["values"].tolist() == [1, 1]


def is_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("file", ["values.npy", "about.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(files.sealed({"tensors": []})),
        is_a_folder,
    ],
)
def test_damage_is_told_and_mended(cache, file, damage):
    times = []
    made(times)
    (path,) = cache.glob(f"*/{file}")
    damage(path)
    with pytest.warns(DamagedCache, match=r"were damaged, and are made anew"):
        assert made(times).tensors["values"].tolist() == [1, 1]
    assert len(times) == 2
    assert made(times).about == {"note": "hello"}
    assert len(times) == 2


def test_a_changed_word_about_the_images_is_found(cache):
    """A class's name, say."""
    made([])
    (path,) = cache.glob("*/about.json")
    path.write_text(path.read_text().replace("hello", "jello"))
    with pytest.warns(DamagedCache, match=r"about\.json"):
        assert made([]).about == {"note": "hello"}


def test_a_file_in_place_of_the_folder_is_replaced(cache):
    made([])
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    shutil.rmtree(folder)
    folder.write_text("")
    made([])
    assert (folder / "about.json").exists()


def test_a_fault_in_the_middle_leaves_nothing_behind(cache):
    def broken(allocate):
        allocate("values", (2,), torch.int64)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        from_cache("broken", {}, broken)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_is_told_and_not_needed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not cached"):
        assert made([]).tensors["values"].tolist() == [1, 1]


def test_a_fixed_data_set_is_read_from_its_source_once(cache, monkeypatch):
    first = load(section("dataset", "digits"))
    datasets._load.cache_clear()
    monkeypatch.setattr("sklearn.datasets.load_digits", None)
    again = load(section("dataset", "digits"))
    for part in ("train", "val", "test"):
        one, other = getattr(first, part), getattr(again, part)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert (again.classes, again.mean, again.std) == (first.classes, first.mean, first.std)


def image_folder(root, sizes):
    from PIL import Image

    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for number, size in enumerate(sizes):
                image = Image.new("RGB", (size, size), (number, 100, 200))
                image.save(root / part / label / f"{number}.png")
    return section("dataset", {"name": "image_folder", "folder": str(root), "val_fraction": 0.3})


def test_image_files_of_one_size_are_decoded_once(tmp_path, monkeypatch):
    chosen = image_folder(tmp_path / "images", [6, 6, 6])
    first = load(chosen)
    assert isinstance(first.train.images, torch.Tensor)
    datasets._load.cache_clear()
    monkeypatch.setattr("vitarium.data._image_cache._make", None)
    again = load(chosen)
    assert torch.equal(first.train.images, again.train.images)


def test_files_that_have_changed_are_decoded_again(tmp_path):
    from PIL import Image

    chosen = image_folder(tmp_path / "images", [6, 6, 6])
    before = load(chosen).test.images.clone()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(tmp_path / "images" / "val" / "cat" / "0.png")
    datasets._load.cache_clear()
    assert not torch.equal(before, load(chosen).test.images)


@pytest.mark.parametrize("sizes", [[6, 6, 6], [6, 7, 8]])
def test_an_image_that_cannot_be_decoded_is_named_and_nothing_is_kept(tmp_path, sizes, recwarn):
    chosen = image_folder(tmp_path / "images", sizes)
    damaged = tmp_path / "images" / "val" / "dog" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(InvalidData, match=f"{damaged} cannot be decoded"):
        [load(chosen).test.images[index] for index in range(6)]
    assert not [warning for warning in recwarn if "cached" in str(warning.message)]


def test_image_files_of_different_sizes_are_decoded_as_they_are_needed(tmp_path):
    found = load(image_folder(tmp_path / "images", [6, 7, 8]))
    assert not isinstance(found.train.images, torch.Tensor)
    assert found.train.images[0].shape[0] == 3


def test_images_that_would_take_too_much_are_decoded_as_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 100)
    found = load(image_folder(tmp_path / "images", [6, 6, 6]))
    assert not isinstance(found.train.images, torch.Tensor)


def test_anothers_cache_is_read_and_what_it_has_not_stays_in_memory(
    disk, remount_read_only, monkeypatch
):
    folder, times = disk("200k"), []
    monkeypatch.setenv("VITARIUM_CACHE", str(folder))
    made(times)
    remount_read_only(folder)
    assert made(times).tensors["values"].tolist() == [1, 1]
    assert len(times) == 1
    with pytest.warns(UserWarning, match="name a folder for them in VITARIUM_CACHE"):
        assert made(times, "others").tensors["values"].tolist() == [1, 1]


def test_a_disk_that_is_too_small_is_found_before_its_memory_is_written_to(disk, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(disk("200k")))

    def fill(allocate):
        allocate("values", (100_000,), torch.int64).fill_(7)
        return {}

    with pytest.warns(UserWarning, match="No space left"):
        assert from_cache("sevens", {}, fill).tensors["values"].sum() == 700_000
