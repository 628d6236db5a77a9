"""Fashion-MNIST from Debian's files, whatever an earlier attempt has left behind."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vitarium.core.errors import DataNotFound
from vitarium.core.registry import section
from vitarium.data.datasets import fashion_mnist as module
from vitarium.data.load import load

IMAGES = {"train": 60, "t10k": 10}
SECTION = {"name": "fashion_mnist", "train_limit": 20}


def idx(values: np.ndarray) -> bytes:
    """The format of MNIST's files: two zeros, uint8, the dimensions, the values."""
    head = bytes([0, 0, 8, values.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


@pytest.fixture
def debian(tmp_path, monkeypatch) -> Path:
    """Files like the package's, of 60 + 10 images; and no network, nor any other folder."""
    packed = tmp_path / "debian"
    packed.mkdir()
    for part, count in IMAGES.items():
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            with gzip.open(packed / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(idx(values))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VITARIUM_DATA", raising=False)
    monkeypatch.setattr(module, "DEBIAN", packed)
    return packed


def sizes(data_dir: Path) -> tuple[int, int, int]:
    found = load(section("dataset", SECTION), data_dir)
    return len(found.train), len(found.val), len(found.test)


def test_the_package_can_be_installed_after_a_download_failed(debian, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "not-installed")
    with pytest.raises(DataNotFound, match="apt install dataset-fashion-mnist"):
        sizes(tmp_path / "data")
    monkeypatch.setattr(module, "DEBIAN", debian)
    assert sizes(tmp_path / "data") == (20, 6, 10)


@pytest.mark.parametrize("content", [b"", idx(np.zeros((60, 28, 28), np.uint8))[:5000]])
def test_files_that_were_cut_short_are_written_anew(debian, tmp_path, content):
    sizes(tmp_path / "whole")
    raw = tmp_path / "whole" / "FashionMNIST" / "raw"
    copy = tmp_path / "cut" / "FashionMNIST" / "raw"
    copy.parent.mkdir(parents=True)
    raw.rename(copy)
    (copy / "train-images-idx3-ubyte").write_bytes(content)
    assert sizes(tmp_path / "cut") == (20, 6, 10)


def test_many_may_unpack_at_a_time_and_leave_nothing_but_the_files(debian, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(module._unpack, [tmp_path / "data"] * 8))
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(p.stem for p in debian.iterdir())
    for packed in debian.iterdir():
        assert (raw / packed.stem).read_bytes() == gzip.decompress(packed.read_bytes())


def test_a_damaged_package_is_no_reason_to_crash(debian, tmp_path):
    for packed in debian.iterdir():
        packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(DataNotFound, match="'fashion_mnist' is not in"):
        sizes(tmp_path / "data")
