"""Stored lessons: a teacher's largest probabilities for every image of every step, on disk.

    FOLDER/lessons.json         what the lessons are of: JSON, sealed with a checksum of itself
    FOLDER/epoch-00001.lessons  those of an epoch, images in the order of its batches:
        8 bytes   magic
        4 bytes   length of the header, little-endian
        header    JSON: epoch, records, top_k, the store's checksum, and the parts in order
        parts     indices (int16 or int32), probabilities (float16)
        8 bytes   XXH3-64 of all before

Before compression a record takes 4 bytes for each of its K classes, or 6 where classes are more
than an int16 can number. Numbers of a part lie rank by rank (all largest first), and byte by byte:
neighbors are alike, so that zstd finds something; it is used where it does.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor

from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput

DESCRIPTION = "lessons.json"
_MAGIC = b"VITLESS1"
_LEVEL = 3  # of zstd
_LARGEST_INT16 = np.iinfo(np.int16).max
_ENDS = len(_MAGIC) + 4


class Lessons(NamedTuple):
    """Of an epoch. indices: classes, largest probability first, integer [records, top_k].
    probabilities: float16 [records, top_k]."""

    indices: NDArray[Any]
    probabilities: NDArray[np.float16]


def index_dtype(num_classes: int) -> str:
    """In which classes are numbered: 2 bytes for 32,767 of them at most."""
    return "int16" if num_classes <= _LARGEST_INT16 else "int32"


def largest(probabilities: Tensor, top_k: int) -> Lessons:
    """The largest of each image's probabilities [records, num_classes], in order."""
    values, indices = probabilities.float().topk(top_k, dim=1)
    dtype = index_dtype(probabilities.shape[1])
    return Lessons(indices.cpu().numpy().astype(dtype), values.cpu().numpy().astype(np.float16))


def dense(lessons: Lessons, num_classes: int) -> Tensor:
    """Probabilities of all classes: what is missing to 1 is spread evenly over those not stored.

    float32 [records, num_classes]. Where rounding made the stored ones sum to more than 1, nothing
    is left for the others.
    """
    stored = torch.from_numpy(lessons.probabilities.astype(np.float32))
    others = max(num_classes - stored.shape[1], 1)
    rest = (1 - stored.sum(1, keepdim=True)).clamp_min(0) / others
    indices = torch.from_numpy(lessons.indices.astype(np.int64))
    return rest.repeat(1, num_classes).scatter_(1, indices, stored)


def epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:05}.lessons"


def stored_epochs(folder: Path) -> list[int]:
    """Epochs whose files are there, in order."""
    names = [path.stem.removeprefix("epoch-") for path in folder.glob("epoch-*.lessons")]
    return sorted(int(name) for name in names if name.isdecimal())


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    files.write_sealed(folder / DESCRIPTION, dict(description))


def read_description(folder: Path) -> dict[str, Any]:
    """Raises InvalidInput where there are no lessons, and CorruptFile."""
    try:
        return files.read_sealed(folder / DESCRIPTION)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInput(f"there are no lessons in {folder}: no {DESCRIPTION}") from None


def store_checksum(description: Mapping[str, Any]) -> str:
    """By which an epoch's file is known to be of these lessons."""
    return files.checksum(json.dumps(description, sort_keys=True).encode())


def write_epoch(folder: Path, epoch: int, lessons: Lessons, store: str) -> Path:
    """One file, which is whole or not there. Raises DiskFull and NotWritable."""
    parts = [_coded(name, part) for name, part in lessons._asdict().items()]
    count, top_k = lessons.indices.shape
    header = {"epoch": epoch, "records": count, "top_k": top_k, "store": store}
    text = json.dumps(header | {"parts": [about for about, _ in parts]}).encode()
    body = b"".join([_MAGIC, struct.pack("<I", len(text)), text, *(data for _, data in parts)])
    path = epoch_file(folder, epoch)
    files.write(path, [body, bytes.fromhex(files.checksum(body))])
    return path


def read_epoch(folder: Path, epoch: int, store: str, num_classes: int) -> Lessons:
    """Raises InvalidInput where the epoch is not there, and CorruptFile where its file is not what
    was written, or is of other lessons."""
    path, body = epoch_file(folder, epoch), check_epoch(folder, epoch, store)
    lessons = Lessons(**_parsed(path, body))
    if lessons.indices.size and not (
        int(lessons.indices.min()) >= 0 and int(lessons.indices.max()) < num_classes
    ):
        raise CorruptFile(path, f"it has classes beyond the {num_classes} that there are")
    return lessons


def check_epoch(folder: Path, epoch: int, store: str) -> bytes:
    """What an epoch's file has before its checksum, which is right; raises as `read_epoch`."""
    path = epoch_file(folder, epoch)
    try:
        content = files.read(path)
    except FileNotFoundError:
        raise InvalidInput(f"{folder} has no lessons of epoch {epoch}: write them first") from None
    body, seal = content[:-8], content[-8:]
    if len(body) < _ENDS or not body.startswith(_MAGIC):
        raise CorruptFile(path, "it does not begin as lessons do")
    if bytes.fromhex(files.checksum(body)) != seal:
        raise CorruptFile(path, "its checksum is another: write this epoch again")
    header, _ = _header(path, body)
    if (header.get("store"), header.get("epoch")) != (store, epoch):
        raise CorruptFile(path, "it is of other lessons or of another epoch")
    return body


def _header(path: Path, body: bytes) -> tuple[dict[str, Any], int]:
    """What is said of the parts, and where they begin. Raises CorruptFile."""
    (length,) = struct.unpack("<I", body[len(_MAGIC) : _ENDS])
    try:
        header = dict(json.loads(body[_ENDS : _ENDS + length]))
    except (ValueError, TypeError) as error:
        raise CorruptFile(path, str(error)) from None
    return header, _ENDS + length


def _parsed(path: Path, body: bytes) -> dict[str, Any]:
    header, start = _header(path, body)
    try:
        shape = (int(header["records"]), int(header["top_k"]))
        parts = {}
        for about in header["parts"]:
            data = body[start : start + about["bytes"]]
            parts[about["name"]] = _decoded(about, data, shape)
            start += about["bytes"]
        if {*parts} != {*Lessons._fields} or start != len(body):
            raise ValueError("its parts are not those of lessons")
    except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise CorruptFile(path, str(error)) from None
    return parts


def _coded(name: str, values: NDArray[Any]) -> tuple[dict[str, Any], bytes]:
    """What the header has of a part, and its bytes."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    by_byte = np.ascontiguousarray(little.T).view(np.uint8).reshape(-1, little.itemsize).T
    plain = by_byte.tobytes()
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    data, is_zstd = (frame, True) if len(frame) < len(plain) else (plain, False)
    about = {"name": name, "dtype": values.dtype.name, "bytes": len(data), "zstd": is_zstd}
    return about, data


def _decoded(about: Mapping[str, Any], data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """[records, top_k]. Raises ValueError and ZstdError."""
    if about["dtype"] not in ("int16", "int32", "float16"):
        raise ValueError(f"its {about['name']} are of the type {about['dtype']}")
    dtype = np.dtype(about["dtype"]).newbyteorder("<")
    size = shape[0] * shape[1] * dtype.itemsize
    if about["zstd"]:
        # asked first: a frame may claim any size, and would be given the memory
        if zstandard.frame_content_size(data) != size:
            raise ValueError(f"its {about['name']} are not {size} bytes")
        data = zstandard.ZstdDecompressor().decompress(data)
    if len(data) != size:
        raise ValueError(f"its {about['name']} are not {size} bytes")
    by_byte = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    values = np.ascontiguousarray(by_byte.T).view(dtype).reshape(shape[1], shape[0])
    return values.T.astype(dtype.newbyteorder("="))
