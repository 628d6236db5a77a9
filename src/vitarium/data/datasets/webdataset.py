"""WebDataset shards: tar files whose members are samples, an image and its class."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.data._image_cache import Allocate, from_cache
from vitarium.data._image_files import EXTENSIONS, RULES, decoded
from vitarium.data.base import DataFolders, Dataset, OwnDataConfig, Split, dataset
from vitarium.data.datasets._rows_of_files import RowsOfFiles
from vitarium.data.datasets._shards import shard_files
from vitarium.data.datasets._tar_index import Members, indexed_images, member_at
from vitarium.data.splits import with_splits

_PARTS = ("train", "val", "test")
_USUAL = ("{}*.tar", "{}/*.tar", "{}*.tar.gz", "{}*.tgz")
"""Where a split's shards lie if nobody says so; of compressed ones an error says what to do."""


class WebDataset(OwnDataConfig):
    """A folder of tar files: train*.tar, val*.tar and perhaps test*.tar. Without test shards, those
    of val are the test split, and validation images are taken from train."""

    folder: str
    """Folder of the shards: below one of the data folders, or an absolute path."""
    train: str | None = None
    """Shards of the training images in that folder: names with braces and globs, several joined by
    `::`, e.g. `imagenet-train-{000000..000146}.tar`; none: `train*.tar` or `train/*.tar`."""
    val: str | None = None
    """Shards of the validation images, as train; none: `val*.tar` or `val/*.tar`, if there are."""
    test: str | None = None
    """Shards of the test images, as train; none: `test*.tar` or `test/*.tar`, if there are."""
    image_member: str | None = None
    """Extension of a sample's image, e.g. `jpg` or `left.png`; none: whichever image it has."""
    class_member: str = "cls"
    """Extension of the member that holds a sample's class."""
    class_key: str | None = None
    """Key of the class, where class_member is `json`."""
    class_names: str | None = None
    """Text file with the name of a class per line, in that folder or an absolute path; none:
    classes are called by their numbers."""

    @model_validator(mode="after")
    def _readable(self) -> "WebDataset":
        for pattern in filter(None, (self.folder, self.train, self.val, self.test)):
            if "://" in pattern or pattern.startswith("pipe:"):
                raise ValueError(f"'{pattern}': shards are read from disk; download them before")
        if (self.class_member == "json") != (self.class_key is not None):
            raise ValueError("class_key goes with `class_member: json`, and is needed there")
        return self


@dataset("webdataset")
def webdataset(config: WebDataset, folders: DataFolders) -> Dataset:
    """WebDataset shards: uncompressed tar files of images and classes, read at random."""
    root = folders.require(config.folder, "folder of shards", "train*.tar and val*.tar")
    shards = {part: _shards(root, part, getattr(config, part)) for part in _PARTS}
    _check_shards(shards, root)
    names = _class_names(root, config.class_names)
    members = Members(config.image_member, EXTENSIONS, config.class_member, config.class_key, names)
    splits = {part: _split(files, members) for part, files in shards.items() if files}
    train, val, test = (splits.get(part) for part in _PARTS)
    if test is None:  # as in image folders: what there is beside train is for tests
        val, test = None, val
    assert train is not None
    assert test is not None
    return with_splits(
        "webdataset",
        names or tuple(map(str, range(int(train.labels.max()) + 1))),
        config,
        train=train,
        val=val,
        test=test,
        mean=config.mean,
        std=config.std,
    )


def _shards(root: Path, part: str, pattern: str | None) -> list[Path]:
    if pattern is not None:
        return shard_files(root, pattern)
    candidates = (sorted(root.glob(usual.format(part))) for usual in _USUAL)
    return next(filter(None, candidates), [])


def _check_shards(shards: Mapping[str, Sequence[Path]], root: Path) -> None:
    """Raises DataNotFound where a split is missing, InvalidData for a shard of two splits."""
    if not shards["train"] or not (shards["val"] or shards["test"]):
        lacking = "val*.tar" if shards["train"] else "train*.tar"
        settings = "val or test" if shards["train"] else "train"
        raise DataNotFound(f"{root} has no {lacking}; name its shards with the setting {settings}")
    split_of: dict[str, str] = {}
    for part, files in shards.items():
        for file in files:
            if (other := split_of.setdefault(os.path.realpath(file), part)) != part:
                raise InvalidData(f"{file} is a shard of both {other} and {part}")
        if len({os.path.realpath(file) for file in files}) < len(files):
            raise InvalidData(f"a shard of {part} is named twice")


def _class_names(root: Path, file: str | None) -> tuple[str, ...]:
    if file is None:
        return ()
    path = root / file
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        raise DataNotFound(f"{path}, the file of class_names, is not there") from None
    except UnicodeDecodeError:
        raise InvalidData(f"{path}, the file of class_names, is no text in UTF-8") from None
    if not names or "" in names or len({*names}) < len(names):
        raise InvalidData(f"{path} has to hold the name of a class per line, each once")
    return names


@dataclass(frozen=True)
class ShardImages(RowsOfFiles):
    """Images in tar files, read where an index says they lie."""

    shards: Sequence[Path]
    indexes: Sequence[Tensor]
    """Of each shard: int64 [n, 3], where header and content of an image begin, and its size."""

    def __getitem__(self, index: int) -> Tensor:
        at, row = self.locate(index)
        shard = self.shards[at]
        header, offset, size = self.indexes[at][row].tolist()
        try:
            with shard.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise InvalidData(f"{shard} cannot be read: {error.strerror}") from None
        try:
            return decoded(content, str(shard))
        except InvalidData:  # once more, for a message that names the member
            name = member_at(shard, header)
            return decoded(content, f"{name} in {shard}")


def _split(shards: list[Path], members: Members) -> Split:
    indexes, labels = zip(*(_index(shard, members) for shard in shards), strict=True)
    ends = [*accumulate(map(len, indexes))]
    stamp = hashlib.sha256(RULES + repr(members).encode())
    for shard in shards:
        stamp.update(repr(_stamp(shard)).encode())
    images = ShardImages(ends, stamp.hexdigest(), shards, indexes)
    return Split(images, torch.cat(labels))


def _index(shard: Path, members: Members) -> tuple[Tensor, Tensor]:
    """Where the images lie, int64 [n, 3], and their classes, int64 [n]; from the cache."""

    def fill(allocate: Allocate) -> Mapping[str, Any]:
        rows = torch.tensor(indexed_images(shard, members))
        allocate("spans", (len(rows), 3), torch.int64).copy_(rows[:, :3])
        allocate("labels", (len(rows),), torch.int64).copy_(rows[:, 3])
        return {}

    cached = from_cache("webdataset", [*_stamp(shard), *members], fill, kind="indexes")
    return cached.tensors["spans"], cached.tensors["labels"]


def _stamp(shard: Path) -> tuple[str, int, int]:
    """Changes with the file, told by its path, size and time."""
    status = shard.stat()
    return str(shard.absolute()), status.st_size, status.st_mtime_ns
