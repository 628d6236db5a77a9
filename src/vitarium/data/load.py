"""Load a data set: once per process, with images that are decoded once per machine."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.core.file_faults import reading
from vitarium.core.registry import Section
from vitarium.data import _image_cache as image_cache
from vitarium.data._decode_ahead import decode_ahead
from vitarium.data._training_split import SETTINGS, with_training_split
from vitarium.data.base import DataFolders, Dataset, Split
from vitarium.data.expected import expected

RESIDENT_BYTES = 4 * 2**30
"""Images of one size that take no more than this when decoded, per split, are decoded once."""

_PARTS = ("train", "val", "test")


def load(section: Section, data_dir: Path | None = None) -> Dataset:
    """Load the data set that a blueprint names; read once per process.

    Raises DataNotFound, InvalidData where it is not what the blueprint says, NotReadable, DiskFull.
    """
    with reading(data_dir or DataFolders().writable):
        return _load(section, data_dir)


def load_local(section: Section, data_dir: Path | None = None) -> Dataset | None:
    """The data set as its files have it, without decoding and keeping its images; None where it is
    not on this machine, or not what the blueprint says: nothing is downloaded.

    Raises NotReadable, DiskFull.
    """
    folders = DataFolders(data_dir, may_download=False)
    is_fixed = section.plugin.facts.get("fixed", False)
    try:
        with reading(data_dir or folders.writable):
            return _fixed(section, folders) if is_fixed else section(folders)
    except (DataNotFound, InvalidData):
        return None


@lru_cache(maxsize=4)
def _load(section: Section, data_dir: Path | None) -> Dataset:
    if section.plugin.facts.get("fixed", False):
        data = _fixed(section, DataFolders(data_dir))
    else:
        data = _read(section, DataFolders(data_dir))
        decoded: dict[str, Any] = {
            part: _decoded(data.name, getattr(data, part)) for part in _PARTS
        }
        data = replace(data, **decoded)
    declared = expected(section)
    if declared.num_classes is not None and declared.num_classes != data.num_classes:
        raise InvalidData(
            f"data set '{section.name}' has {data.num_classes} classes, "
            f"but num_classes says {declared.num_classes}"
        )
    return data


def _read(section: Section, folders: DataFolders) -> Dataset:
    data: Dataset = section(folders)
    return with_training_split(data, section.config)


def _fixed(section: Section, folders: DataFolders) -> Dataset:
    """A data set that is the same everywhere: read once per machine, then from the cache."""

    def fill(allocate: image_cache.Allocate) -> Mapping[str, Any]:
        read = _read(section, folders)
        for part in _PARTS:
            split: Split = getattr(read, part)
            for name, values in (("images", split.images), ("labels", split.labels)):
                assert isinstance(values, Tensor)
                allocate(f"{part}-{name}", tuple(values.shape), values.dtype).copy_(values)
        return {"classes": read.classes, "mean": read.mean, "std": read.std}

    cached = image_cache.from_cache(section.name, _cache_key(section), fill)
    train, val, test = (
        Split(cached.tensors[f"{part}-images"], cached.tensors[f"{part}-labels"]) for part in _PARTS
    )
    classes, mean, std = (tuple(cached.about[name]) for name in ("classes", "mean", "std"))
    return Dataset(section.name, classes, train, val, test, mean, std)


def _cache_key(section: Section) -> Mapping[str, Any]:
    """What decides the content; settings of training images where they change some, so that what
    earlier versions kept is used."""
    changes = section.config.factors(defaults=False)
    settings = section.config.factors().items()
    return {n: value for n, value in settings if n not in SETTINGS or n in changes}


class _SizesDiffer(Exception):
    pass


def _decoded(name: str, split: Split) -> Split:
    """With images that are decoded already, if they are few and of one size."""
    images = split.images
    if isinstance(images, Tensor) or not len(images):
        return split
    shape = images[0].shape
    if len(images) * shape.numel() > RESIDENT_BYTES:
        return split
    if (fingerprint := getattr(images, "fingerprint", None)) is None:  # it reads all files' times
        return split

    def fill(allocate: image_cache.Allocate) -> Mapping[str, Any]:
        target = allocate("images", (len(images), *shape), torch.uint8)
        for number, image in enumerate(decode_ahead(images, range(len(images)))):
            if image.shape != shape:
                raise _SizesDiffer
            target[number] = image
        return {}

    try:
        cached = image_cache.from_cache(name, fingerprint, fill)
        return Split(cached.tensors["images"], split.labels)
    except _SizesDiffer:
        return split
