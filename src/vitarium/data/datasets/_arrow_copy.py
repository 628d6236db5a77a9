"""Parquet files of encoded images, as Arrow files that are read at random.

A parquet file gives a group of rows at a time: shuffled, every image would cost as much as a
hundred. So it is copied once, row group by row group, to an Arrow file, which is mapped into memory
and gives any row for itself. Neither takes more memory for more images.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from filelock import FileLock
from torch import Tensor

from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidData
from vitarium.core.file_faults import writing
from vitarium.core.printable import printable
from vitarium.data._image_files import RULES, decoded
from vitarium.data.base import Split
from vitarium.data.datasets._rows_of_files import RowsOfFiles

FORMAT = 1
BATCH_ROWS = 64
"""Rows that are held, and written, at a time."""
_BUFFER_BYTES = 1 << 20
_MAX_OPEN = 128


class Columns(NamedTuple):
    image: str
    label: str


class ArrowCopy(NamedTuple):
    """A copy in the cache, and what it is of: a path or address, and what changes with it."""

    path: Path
    source: tuple[str, ...]


def copy_path(folder: Path, name: str, source: Sequence[str], columns: Columns) -> Path:
    """Where the copy of a source lies; `name` is for people."""
    text = json.dumps([FORMAT, source[0], *columns])
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.arrow"


def local_copy(parquet: Path, columns: Columns, folder: Path) -> ArrowCopy:
    """The copy of a file, made anew when its size or time changes. Raises InvalidData."""
    status = parquet.stat()
    source = (str(parquet.absolute()), str(status.st_size), str(status.st_mtime_ns))
    copy = ArrowCopy(copy_path(folder, parquet.stem, source, columns), source)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.path.with_suffix(".lock")):
            if not is_there(copy):
                write_copy(parquet, columns, copy, str(parquet))
    return copy


def is_there(copy: ArrowCopy) -> bool:
    """Whether the copy was written to its end, and is of that source as it is now."""
    import pyarrow

    try:
        with pyarrow.OSFile(str(copy.path)) as file, pyarrow.ipc.open_file(file) as opened:
            metadata = opened.schema.metadata or {}
    except (OSError, pyarrow.ArrowException):
        return False
    return bool(metadata.get(b"source") == _stamp(copy))


def write_copy(parquet: Path, columns: Columns, copy: ArrowCopy, name: str) -> None:
    """Copy a file that errors call by `name`. Raises InvalidData; the copy is whole or not there.

    At most a row group is in memory, of which BATCH_ROWS rows are decoded.
    """
    import pyarrow

    several = has_several_labels(parquet, columns)
    schema = pyarrow.schema(
        [
            ("image", pyarrow.large_binary()),
            ("label", pyarrow.list_(pyarrow.int64()) if several else pyarrow.int64()),
            ("xxh3", pyarrow.uint64()),
        ],
        metadata={"source": _stamp(copy), "names": json.dumps(_class_names(parquet, columns))},
    )
    beside = copy.path.with_name(files.temporary_name(copy.path))
    try:
        with pyarrow.OSFile(str(beside), "wb") as file, pyarrow.ipc.new_file(file, schema) as out:
            for batch in _batches(parquet, columns, name):
                out.write_batch(pyarrow.record_batch(batch, schema=schema))
        beside.replace(copy.path)
        _table.cache_clear()  # it may hold the file that was there before
    finally:
        beside.unlink(missing_ok=True)


def check_parquet(parquet: Path, columns: Columns, name: str) -> None:
    """Raises InvalidData for a broken file, a missing column, and one of a wrong type."""
    import pyarrow
    import pyarrow.parquet
    from pyarrow import types

    try:
        schema = pyarrow.parquet.read_schema(parquet)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidData(f"{name} cannot be read as parquet: {_first_line(error)}") from None
    check_columns(schema.names, columns, name)
    of_label = schema.field(columns.label).type
    if _is_list(of_label):
        of_label = of_label.value_type
    if not (types.is_integer(of_label) or types.is_boolean(of_label)):
        what = f"column '{columns.label}' holds {of_label}, not numbers of classes"
        raise InvalidData(f"{name}: {what}")
    of_image = schema.field(columns.image).type
    if types.is_struct(of_image) and of_image.get_field_index("bytes") >= 0:
        of_image = of_image.field("bytes").type
    if not (types.is_binary(of_image) or types.is_large_binary(of_image)):
        what = f"column '{columns.image}' holds {of_image}, not encoded images"
        raise InvalidData(f"{name}: {what}")


def has_several_labels(parquet: Path, columns: Columns) -> bool:
    """Whether the column of labels has a list of them for each image; False of a broken file."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(parquet)
        return _is_list(schema.field(columns.label).type)
    except (pyarrow.ArrowException, OSError, KeyError):  # which check_parquet says
        return False


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def multi_hot(rows: Sequence[Sequence[int]], name: str) -> Tensor:
    """Numbers of each image's classes -> bool [n, largest number + 1]. Raises InvalidData."""
    largest = max((number for row in rows for number in row), default=-1)
    labels = torch.zeros(len(rows), largest + 1, dtype=torch.bool)
    for number, row in enumerate(rows):
        if min(row, default=0) < 0:
            raise InvalidData(f"{name}: row {number} has the label {min(row)}")
        labels[number, list(row)] = True
    return labels


def check_columns(names: Sequence[str], columns: Columns, name: str) -> None:
    """Raises InvalidData where there is no such column."""
    for setting, column in columns._asdict().items():
        if column not in names:
            there = f"there are {', '.join(map(printable, names))}"
            how = f"name it with the setting {setting}_column"
            raise InvalidData(f"no column '{column}' in {name}; {there}; {how}")


def split_of(copies: Sequence[ArrowCopy]) -> tuple[Split, tuple[str, ...] | None]:
    """The images of several copies, and the names of their classes, if the first one has them."""
    tables = [_table(copy) for copy in copies]
    names = json.loads((tables[0].schema.metadata or {})[b"names"])
    stamp = hashlib.sha256(RULES)
    for copy in copies:
        stamp.update(_stamp(copy))
    images = ArrowImages([*accumulate(map(len, tables))], stamp.hexdigest(), copies)
    return Split(images, _labels_of(tables, copies[0].source[0])), names and tuple(names)


def _labels_of(tables: Sequence[Any], name: str) -> Tensor:
    """int64 [n], or bool [n, classes] of several labels."""
    if _is_list(tables[0].schema.field("label").type):
        return multi_hot([row for table in tables for row in table["label"].to_pylist()], name)
    labels = [np.asarray(table["label"], dtype=np.int64) for table in tables]
    return torch.from_numpy(np.concatenate(labels))


@dataclass(frozen=True)
class ArrowImages(RowsOfFiles):
    """Images in copies of parquet files."""

    copies: Sequence[ArrowCopy]

    def __getitem__(self, index: int) -> Tensor:
        file, row = self.locate(index)
        copy = self.copies[file]
        table = _table(copy)
        content = table["image"][row].as_buffer().to_pybytes()
        label, checksum = (table[name][row].as_py() for name in ("label", "xxh3"))
        if _checksum(content, label) != checksum:
            raise CorruptFile(copy.path, f"row {row} is not as it was written; delete the file")
        return decoded(content, f"row {row} of {copy.source[0]}")


@lru_cache(maxsize=_MAX_OPEN)
def _table(copy: ArrowCopy) -> Any:
    """A copy, mapped: its pages are read when they are looked at."""
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.memory_map(str(copy.path))).read_all()


def _batches(parquet: Path, columns: Columns, name: str) -> Iterator[dict[str, Any]]:
    """Rows of image, label and checksum, a few at a time."""
    import pyarrow
    import pyarrow.parquet

    check_parquet(parquet, columns, name)
    first = 0
    try:
        # a row group's columns are buffered, not read ahead; no threads, which each would hold one
        opened = pyarrow.parquet.ParquetFile(parquet, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        with opened as source:
            for batch in source.iter_batches(BATCH_ROWS, columns=[*columns], use_threads=False):
                images = [*map(_bytes_of, batch[columns.image].to_pylist())]
                of_labels = batch[columns.label]
                if not _is_list(of_labels.type):
                    of_labels = of_labels.cast(pyarrow.int64())
                labels = of_labels.to_pylist()
                for column, values in ((columns.image, images), (columns.label, labels)):
                    empty = [v is None or (isinstance(v, list) and None in v) for v in values]
                    if True in empty:
                        row = first + empty.index(True)
                        raise InvalidData(f"{name}: row {row} of column '{column}' is empty")
                digests = [*map(_checksum, images, labels)]
                yield {"image": images, "label": labels, "xxh3": digests}
                first += len(images)
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidData(f"{name} cannot be read as parquet: {_first_line(error)}") from None


def _checksum(image: bytes, label: int | list[int]) -> int:
    if isinstance(label, list):
        label = xxhash.xxh3_64_intdigest(json.dumps(label).encode())
    return xxhash.xxh3_64_intdigest(image, seed=label % 2**64)


def _bytes_of(value: Any) -> Any:
    """Of an image as the hub's parquet files have it, with its name beside; or just its bytes."""
    return value["bytes"] if isinstance(value, dict) else value


def _class_names(parquet: Path, columns: Columns) -> list[str] | None:
    """Names of the classes in label order, as `datasets` writes them into a file's metadata."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(parquet).metadata or {}
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = _with_names(features[columns.label])["names"]
    except (
        *(pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError),
        *(AttributeError, IndexError),
    ):
        return None
    return names if isinstance(names, list) and all(type(name) is str for name in names) else None


def _with_names(feature: Any) -> Any:
    """What has the classes' names: of a list of labels the feature that is inside."""
    if isinstance(feature, list):
        return feature[0]
    return feature.get("feature", feature)


def _stamp(copy: ArrowCopy) -> bytes:
    return json.dumps(copy.source).encode()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
