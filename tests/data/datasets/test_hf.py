"""Parquet files and the hub: read at random from copies, in little memory, file by file."""

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import CorruptFile, DataNotFound, InvalidData, InvalidInput
from vitarium.core.registry import section
from vitarium.data.base import DataFolders
from vitarium.data.datasets import _arrow_copy, hf

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
NAMES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def encoded(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 3, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(number: int) -> bytes:
    return np.asarray(Image.open(io.BytesIO(encoded(number)))).transpose(2, 0, 1).tobytes()


def write(path: Path, numbers, *, images=None, labels=None, plain=False, metadata=None) -> Path:
    """Rows of images with these numbers, labeled by turns; four rows in a group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [encoded(number) for number in numbers] if images is None else images
    column = images if plain else [{"bytes": image, "path": None} for image in images]
    table = pyarrow.table(
        {
            "image": pyarrow.array(column, pyarrow.binary() if plain else STRUCT),
            "label": [number % 2 for number in numbers] if labels is None else labels,
        }
    )
    table = table.replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, path, row_group_size=4)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve training images in two files, four for tests."""
    folder = tmp_path / "rows"
    write(
        folder / "train-00000-of-00002.parquet",
        range(5),
        metadata={"huggingface": json.dumps(NAMES)},
    )
    write(folder / "train-00001-of-00002.parquet", range(5, 12))
    write(folder / "test.parquet", range(20, 24))
    return folder


def read(root: Path, **settings):
    config = hf.HuggingFace(folder=str(root), **settings)
    return hf.hf(config, DataFolders(root.parent))


def everything(*splits) -> list[tuple[bytes, int]]:
    return [
        (split.images[i].numpy().tobytes(), int(split.labels[i]))
        for split in splits
        for i in range(len(split))
    ]


def expected(numbers) -> list[tuple[bytes, int]]:
    return [(pixels(number), number % 2) for number in numbers]


def copies(root: Path) -> list[Path]:
    return sorted((root.parent / "arrow").glob("*.arrow"))


# Files of this machine


def test_several_files_are_one_split_in_their_order(root):
    data = read(root, val_fraction=0.25)
    assert sorted(everything(data.train, data.val)) == sorted(expected(range(12)))
    assert everything(data.test) == expected(range(20, 24))
    assert data.classes == ("cat", "dog")


def test_a_folder_as_the_hub_has_it_and_plain_bytes(root):
    root.rename(root.parent / "data")
    root.mkdir()
    (root.parent / "data").rename(root / "data")
    write(root / "data" / "test.parquet", range(30, 33), plain=True)
    assert everything(read(root).test) == expected(range(30, 33))


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({}, (12, 3, 4)),
        ({"val_split": "test", "test_split": "validation"}, (12, 4, 3)),
        ({"test_split": "validation", "val_fraction": 0.25}, (9, 3, 3)),
        ({"train_split": "test", "test_split": "train"}, (4, 3, 12)),
    ],
)
def test_splits_have_any_names(root, settings, lengths):
    write(root / "validation.parquet", range(30, 33))
    (root / "unused.parquet").write_bytes(b"not read")
    data = read(root, **settings)
    assert tuple(map(len, (data.train, data.val, data.test))) == lengths


def test_a_missing_split_is_named(root):
    with pytest.raises(InvalidData, match=r"has the splits test, train; .* settings train_split"):
        read(root, val_split="dev")


def test_a_file_is_copied_once_until_it_changes(root, monkeypatch):
    read(root)
    copied = []
    original = _arrow_copy.write_copy
    monkeypatch.setattr(
        _arrow_copy, "write_copy", lambda file, *a: copied.append(file.name) or original(file, *a)
    )
    read(root)
    assert copied == []
    write(root / "test.parquet", range(40, 43))
    assert everything(read(root).test) == expected(range(40, 43))
    assert copied == ["test.parquet"]
    assert len(copies(root)) == 3


def test_a_damaged_copy_is_named_and_one_that_is_cut_is_made_anew(root):
    data = read(root)
    copy = copies(root)[0]
    content = bytearray(copy.read_bytes())
    at = content.index(encoded(20)) + 30
    content[at] ^= 1
    copy.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"test-.*arrow: row 0 is not as it was written"):
        read(root).test.images[0]
    copy.write_bytes(content[:-100])
    assert everything(read(root).test) == everything(data.test)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": [encoded(0), None]}, "test.parquet: row 1 of column 'image' is empty"),
        ({"labels": [0, None]}, "test.parquet: row 1 of column 'label' is empty"),
        ({"labels": pyarrow.array([0, 2**63], pyarrow.uint64())}, "cannot be read as parquet"),
    ],
)
def test_wrong_rows_are_named(root, wrong, message):
    write(root / "test.parquet", range(2), **wrong)
    with pytest.raises(InvalidData, match=message):
        read(root)
    assert not list((root.parent / "arrow").glob(".*"))


def test_images_that_are_no_bytes_are_refused(root):
    table = pyarrow.table({"image": ["a.png"], "label": [0]})
    pyarrow.parquet.write_table(table, root / "test.parquet")
    with pytest.raises(InvalidData, match="column 'image' holds string, not encoded images"):
        read(root)


def test_a_row_that_is_no_image_is_named(root):
    write(root / "test.parquet", range(2), images=[encoded(0), b"%!PS-Adobe EPSF"])
    with pytest.raises(InvalidData, match=r"row 1 of .*test.parquet cannot be decoded: it is none"):
        read(root).test.images[1]


@pytest.mark.parametrize("groups", [8, 40])
def test_a_copy_takes_the_memory_of_a_row_group_whatever_the_size(tmp_path, monkeypatch, groups):
    image = np.random.default_rng(0).bytes(100_000)
    file = tmp_path / "train.parquet"
    write(file, range(4 * groups), images=[image[i:] for i in range(4 * groups)])
    held, original = [], _arrow_copy._checksum
    before = pyarrow.total_allocated_bytes()

    def measured(content: bytes, label: int) -> int:
        held.append(pyarrow.total_allocated_bytes() - before)
        return original(content, label)

    monkeypatch.setattr(_arrow_copy, "_checksum", measured)
    monkeypatch.setattr(_arrow_copy, "BATCH_ROWS", 4)
    _arrow_copy.local_copy(file, _arrow_copy.Columns("image", "label"), tmp_path)
    assert len(held) == 4 * groups
    assert max(held) < 3 * 4 * 100_000 + 2 * _arrow_copy._BUFFER_BYTES


# The hub


@pytest.fixture
def hub(root, monkeypatch):
    """A hub whose data set lies in a folder; counts what is asked for."""
    datasets = pytest.importorskip("datasets")
    huggingface_hub = pytest.importorskip("huggingface_hub")
    address = "hf://datasets/some/images@refs%2Fpr%2F1/"
    files = {
        "train": [address + f"train-0000{i}-of-00002.parquet" for i in range(2)],
        "test": [address + "test.parquet"],
        "unsupervised": [address + "unsupervised.parquet"],
    }
    hub_calls = SimpleNamespace(lists=0, downloads=[], files=files, fails=set())

    def load_dataset_builder(name, config_name, revision):
        assert (name, config_name, revision) == ("some/images", None, None)
        hub_calls.lists += 1
        return SimpleNamespace(config=SimpleNamespace(data_files=hub_calls.files))

    def hf_hub_download(repository, path, repo_type, revision, local_dir):
        assert (repository, repo_type, revision) == ("some/images", "dataset", "refs/pr/1")
        hub_calls.downloads.append(path)
        if path in hub_calls.fails:
            raise ConnectionError
        return shutil.copy(root / path, local_dir)

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return hub_calls


def stream(root: Path):
    config = hf.HuggingFace(dataset="some/images", streaming=True)
    return hf.hf(config, DataFolders(root.parent))


def test_files_of_the_hub_are_downloaded_one_by_one_and_once(root, hub):
    data = stream(root)
    assert sorted(everything(data.train, data.val)) == sorted(expected(range(12)))
    assert data.classes == ("cat", "dog")
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"]
    assert (hub.lists, hub.downloads) == (1, names)
    assert everything(stream(root).test) == everything(data.test)
    assert (hub.lists, hub.downloads) == (1, names)
    assert not list((root.parent / "arrow").rglob("*.parquet"))


def test_a_download_that_fails_goes_on_with_the_file_that_is_missing(root, hub):
    second = "train-00001-of-00002.parquet"
    hub.fails = {second}
    with pytest.raises(DataNotFound, match=f"cannot get hf://.*{second} from the hub: the hub"):
        stream(root)
    hub.fails = set()
    assert everything(stream(root).test) == expected(range(20, 24))
    assert hub.downloads == ["train-00000-of-00002.parquet", second, second, "test.parquet"]


def test_streaming_takes_parquet_alone(root, hub):
    hub.files["train"] = ["hf://datasets/some/images@main/train.zip"]
    with pytest.raises(InvalidInput, match=r"has hf://.*train\.zip; set streaming to false"):
        stream(root)


def test_data_sets_of_the_hub_that_are_not_streamed(root, monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )

    def rows(numbers):
        images = [{"bytes": encoded(number), "path": None} for number in numbers]
        labels = [number % 2 for number in numbers]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    parts = {"train": rows(range(12)), "validation": rows(range(20, 24))}
    options = {}
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names, **given: options.update(given) or parts
    )
    config = hf.HuggingFace(dataset="some/images", revision="v1", val_fraction=0.25)
    data = hf.hf(config, DataFolders(root.parent))
    assert sorted(everything(data.train, data.val)) == sorted(expected(range(12)))
    assert everything(data.test) == expected(range(20, 24))
    assert data.classes == ("cat", "dog")
    assert options["revision"] == "v1"


@pytest.mark.parametrize("setting", [{"streaming": True}, {"revision": "main"}])
def test_settings_of_the_hub_are_not_for_folders(setting):
    with pytest.raises(InvalidConfig, match="not of a folder"):
        section("dataset", {"name": "hf", "folder": "rows", **setting})
