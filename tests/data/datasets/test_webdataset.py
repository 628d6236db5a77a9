"""Shards of samples: what is in them, in which order, and what is refused."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import DamagedCache, DataNotFound, InvalidData, InvalidInput
from vitarium.core.registry import section
from vitarium.data import load as datasets
from vitarium.data.augmentations.standard import Standard, standard
from vitarium.data.base import DataFolders
from vitarium.data.datasets import webdataset
from vitarium.data.datasets._shards import expand_braces
from vitarium.data.loader import Batches
from vitarium.testing import check_dataset

Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    datasets._load.cache_clear()
    return tmp_path / "cache"


def encoded(number: int, kind: str = "png") -> bytes:
    """An image of random pixels; its size differs, so that images are streamed."""
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 3, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, members: Members | list[tuple[str, bytes]], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in [*members.items()] if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(numbers, label=lambda number: number % 2) -> Members:
    members = {}
    for number in numbers:
        members[f"{number:04}.cls"] = str(label(number)).encode()
        members[f"{number:04}.png"] = encoded(number)
    return members


@pytest.fixture
def root(tmp_path) -> Path:
    """Two training shards of six samples, one of four for tests."""
    folder = tmp_path / "shards"
    write(folder / "train-000.tar", samples(range(6)))
    write(folder / "train-001.tar", samples(range(6, 12)))
    write(folder / "test-000.tar", samples(range(20, 24)))
    return folder


def config(root: Path, **settings) -> webdataset.WebDataset:
    return webdataset.WebDataset(folder=str(root), **settings)


def read(root: Path, **settings):
    return webdataset.webdataset(config(root, **settings), DataFolders())


def everything(split) -> list[tuple[bytes, int]]:
    return [(split.images[i].numpy().tobytes(), int(split.labels[i])) for i in range(len(split))]


# What is in them


def test_shards_hold_what_pythons_tarfile_reads(root):
    data = read(root, val_fraction=0.25)
    expected = []
    for shard in sorted(root.glob("train*.tar")):
        with tarfile.open(shard) as archive:
            for name in archive.getnames():
                if name.endswith(".png"):
                    pixels = np.asarray(Image.open(archive.extractfile(name)))
                    label = archive.extractfile(name.replace("png", "cls")).read()
                    expected.append((pixels.transpose(2, 0, 1).tobytes(), int(label)))
    assert sorted(everything(data.train) + everything(data.val)) == sorted(expected)
    assert (data.classes, len(data.val), len(data.test)) == (("0", "1"), 3, 4)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_file_and_long_names_are_read(root, form):
    key = "a" * 60 + "/" + "é" * 40 if form == tarfile.USTAR_FORMAT else "é" * 150
    members = {f"./{key}.PNG": encoded(1), f"./{key}.cls": b"1\n", "._x.png": b"", "README": b""}
    write(root / "test-000.tar", members, format=form)
    data = read(root)
    assert everything(data.test) == everything_of(encoded(1), 1)
    write(root / "test-000.tar", {**members, f"./{key}.PNG": b"none"}, format=form)
    with pytest.raises(InvalidData, match=f"{key}.PNG in .*test-000.tar cannot be decoded"):
        read(root).test.images[0]


def everything_of(content: bytes, label: int) -> list[tuple[bytes, int]]:
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return [(pixels.transpose(2, 0, 1).tobytes(), label)]


def test_classes_of_json_and_names(root):
    (root / "names.txt").write_text("cat\ndog\n")
    for part in ("train-000", "train-001", "test-000"):
        members = {}
        for number in range(4):
            name = f"{part}/{number}"
            members[f"{name}.jpg"] = encoded(number, "jpeg")
            members[f"{name}.depth.png"] = encoded(number + 1)
            value = number % 2 if number < 2 else ("cat", "dog")[number % 2]
            members[f"{name}.json"] = json.dumps({"class": value}).encode()
        write(root / f"{part}.tar", members)
    settings = {"class_member": "json", "class_key": "class", "class_names": "names.txt"}
    data = read(root, **settings)
    assert data.classes == ("cat", "dog")
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    deep = read(root, image_member="depth.png", **settings)
    assert everything(deep.test)[0] == everything_of(encoded(1), 0)[0]


def test_validation_shards_of_their_own(root):
    write(root / "val" / "a.tar", samples(range(30, 33)))
    data = read(root)
    assert [len(part) for part in (data.train, data.val, data.test)] == [12, 3, 4]
    (root / "test-000.tar").unlink()
    data = read(root, val_fraction=0.25)
    assert [len(part) for part in (data.train, data.val, data.test)] == [9, 3, 3]


def test_patterns_name_shards_in_order(root):
    data = read(root, train="train-{001..001}.tar::tra*0.tar", test="t?st-[0-9]*.tar")
    first, second = (read(root, train=name) for name in ("train-001.tar", "train-000.tar"))
    shards = [Path(shard).name for shard in data.train.images.images.shards]
    assert shards == ["train-001.tar", "train-000.tar"]
    assert {*everything(data.train), *everything(data.val)} == {
        *(everything(first.train) + everything(first.val)),
        *(everything(second.train) + everything(second.val)),
    }


def test_batches_do_not_depend_on_loader_workers(root):
    data = read(root)
    augmentation = standard(Standard(crop="random_resized"), (3, 8, 8), 2)
    here, workers = (
        Batches(data, augmentation, (3, 8, 8), 4, seed=0, loader_workers=count) for count in (0, 1)
    )
    for batch, same_batch in zip(here.train(3), workers.train(3), strict=True):
        assert torch.equal(batch.images, same_batch.images)
        assert torch.equal(batch.labels, same_batch.labels)


def test_a_grown_model_can_be_planned_and_keeps_to_the_contract(root):
    check_dataset("webdataset", folder=str(root), num_train=12, num_classes=2, val_fraction=0.25)


# The index


def test_an_index_is_read_once_until_the_shard_changes(root, cache, monkeypatch):
    read(root)
    indexed = []
    original = webdataset.indexed_images
    monkeypatch.setattr(
        webdataset, "indexed_images", lambda *a: indexed.append(a[0].name) or original(*a)
    )
    read(root)
    assert indexed == []
    write(root / "train-001.tar", samples(range(6, 11)))
    assert len(read(root).train) == 10
    assert indexed == ["train-001.tar"]


def test_a_damaged_index_is_made_anew(root, cache):
    expected = everything(read(root).test)
    for file in (cache / "indexes").glob("*/spans.npy"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.warns(DamagedCache, match="indexes of shards .* were damaged"):
        assert everything(read(root).test) == expected


# What is refused


def linked(path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("evil.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as archive:
        archive.addfile(member)


SAMPLE = [("a.png", encoded(1)), ("a.cls", b"0")]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("/etc/a.png", b""), ("/etc/a.cls", b"0")], "member /etc/a.png leads out of the archive"),
        ([("b/../../a.png", b"")], r"member b/\.\./\.\./a.png leads out"),
        ([*SAMPLE, ("b.png", b""), ("b.cls", b"0"), ("a.txt", b"")], "'a' comes twice"),
        ([*SAMPLE, ("a.png", b"")], "two members a.png"),
        ([("a.png", b"")], r"no class, 'cls', in the sample 'a' \(with png\)"),
        ([("a.cls", b"0"), ("a.txt", b"")], r"no image in the sample 'a' \(with cls, txt\)"),
        ([*SAMPLE, ("a.jpg", b"")], "several images in the sample 'a'"),
        ([("a.png", b""), ("a.cls", b"cat")], "a.cls holds 'cat', which is no number of a class"),
        ([("a.png", b""), ("a.cls", b"-1")], "a.cls holds '-1'"),
        ([("a.png", b""), ("a.cls", b"\xff\x1b")], r"a.cls holds '\\udcff"),
        ([], "has no samples"),
    ],
)
def test_wrong_samples_are_named_with_their_shard(root, members, message):
    write(root / "train-001.tar", members)
    with pytest.raises(InvalidData, match=message) as error:
        read(root)
    assert str(root / "train-001.tar") in str(error.value)


@pytest.mark.parametrize(
    ("kind", "what"),
    [(tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"), (tarfile.CHRTYPE, "a device")],
)
def test_links_and_devices_are_refused(root, kind, what):
    linked(root / "train-001.tar", kind)
    with pytest.raises(InvalidData, match=f"train-001.tar: the member evil.png is {what}"):
        read(root)


def test_a_shard_that_is_cut_short_anywhere_is_named(root):
    shard = root / "train-001.tar"
    content = shard.read_bytes()
    end = len(content.rstrip(b"\0"))
    for length in [*range(0, end, 100), -(-end // 512) * 512]:
        shard.write_bytes(content[:length])
        with pytest.raises(InvalidData, match=r"train-001\.tar (is cut short|is damaged|has no)"):
            read(root)


def test_damaged_headers_are_named(root):
    shard = root / "train-001.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as archive:
        middle = archive.getmembers()[5].offset
    content[middle + 150] ^= 0xFF  # in the checksum, at which tarfile ends as at the end
    shard.write_bytes(content)
    with pytest.raises(InvalidData, match=f"train-001.tar is damaged at byte {middle}"):
        read(root)


def test_a_negative_size_is_no_endless_loop(root):
    shard = root / "train-001.tar"
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    shard.write_bytes(shard.read_bytes()[:1024].join([b"", bytes(header) + bytes(1024)]))
    with pytest.raises(InvalidData, match=r"train-001\.tar"):
        read(root)


def test_shards_put_together_by_cat_are_refused(root):
    shard = root / "train-000.tar"
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(InvalidData, match="goes on behind its end mark"):
        read(root)


@pytest.mark.parametrize(
    ("mode", "suffix", "command"),
    [("w:gz", "tar.gz", "gunzip"), ("w:gz", "tgz", "gunzip"), ("w:xz", "tar", "unxz")],
)
def test_compressed_shards_say_how_to_unpack_them(root, mode, suffix, command):
    (root / "test-000.tar").unlink()
    with tarfile.open(root / f"test-000.{suffix}", mode):
        pass
    with pytest.raises(InvalidData, match=rf"is compressed.*unpack it: {command} '.*{suffix}'"):
        read(root)


def test_a_shard_that_goes_away_is_named(root):
    data = read(root)
    (root / "test-000.tar").unlink()
    with pytest.raises(InvalidData, match=r"test-000\.tar cannot be read: No such file"):
        data.test.images[0]


# Which shards


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "train-{000..002}.tar"}, r"shard .*train-002\.tar is not there; 'train-\{000"),
        ({"val": "valid*.tar"}, r"no file matches .*/valid\*\.tar"),
        ({"class_names": "names"}, "names, the file of class_names, is not there"),
    ],
)
def test_missing_files_are_named(root, settings, message):
    with pytest.raises(DataNotFound, match=message):
        read(root, **settings)


def test_missing_splits_are_named(root):
    (root / "test-000.tar").unlink()
    with pytest.raises(DataNotFound, match=r"has no val\*\.tar; .* the setting val or test"):
        read(root)
    with pytest.raises(DataNotFound, match=r"folder of shards '.*elsewhere' is not there"):
        read(root.with_name("elsewhere"))


def test_a_shard_of_two_splits_is_refused(root):
    with pytest.raises(InvalidData, match=r"train-001\.tar is a shard of both train and val"):
        read(root, val="train-001.tar")
    with pytest.raises(InvalidData, match="a shard of train is named twice"):
        read(root, train="train*.tar::train-000.tar")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "https://a.b/c.tar"}, "download them before"),
        ({"train": "pipe:cat x"}, "download them before"),
        ({"class_member": "json"}, "class_key"),
        ({"class_key": "label"}, "class_key"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        section("dataset", {"name": "webdataset", "folder": "x", **settings})


@pytest.mark.parametrize("text", ["", "cat\n\ndog", "cat\ncat"])
def test_names_of_classes_are_one_a_line(root, text):
    (root / "names").write_text(text)
    with pytest.raises(InvalidData, match="the name of a class per line"):
        read(root, class_names="names")


def test_braces_are_those_of_a_shell():
    assert expand_braces("{a,b}-{08..10}.tar") == [
        *("a-08.tar", "a-09.tar", "a-10.tar"),
        *("b-08.tar", "b-09.tar", "b-10.tar"),
    ]
    assert expand_braces("{9..10}") == ["9", "10"]
    for wrong in ("{3..1}", "{x}", "{1..2", "1}", "{0..999999999}"):
        with pytest.raises(InvalidInput, match=r"stands for|counts down|neither|do not match"):
            expand_braces(wrong)
