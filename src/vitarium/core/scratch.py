"""Files that are as much memory as they are files: for what is too large to be held in memory."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from vitarium.core import files
from vitarium.core.file_faults import writing

_ZEROS = bytes(1 << 20)


def scratch(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    """A tensor [count] in a new file that is mapped into memory; the system writes it out for room.

    Raises DiskFull and NotWritable now: had a file too little room when its memory is written to,
    that would be the end of the process.
    """
    nbytes = count * dtype.itemsize
    with writing(path), path.open("w+b") as file:
        reserve(file.fileno(), nbytes)
        content = mmap.mmap(file.fileno(), nbytes)
    return torch.frombuffer(content, dtype=dtype, count=count)


@contextmanager
def temporary_folder(folder: Path | None = None, prefix: str = "vitarium-") -> Iterator[Path]:
    """A folder that is gone in the end, in `folder` or `$TMPDIR`. Raises DiskFull, NotWritable."""
    with ExitStack() as stack:
        with writing(folder or Path(os.environ.get("TMPDIR", "/tmp"))):
            name = stack.enter_context(TemporaryDirectory(prefix=prefix, dir=folder))
        yield Path(name)


def disk_buffer(folder: Path) -> AbstractContextManager[Path]:
    """A folder inside of a zoo's, gone at the end. Raises DiskFull, NotWritable, LeadsOutside."""
    files.check_inside(folder, folder.parent)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return temporary_folder(folder, ".merge.")


def reserve(handle: int, nbytes: int) -> None:
    """Take room for an open file of that many bytes. Raises OSError where there is too little."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        try:
            os.posix_fallocate(handle, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    written = 0
    while written < nbytes:
        written += os.pwrite(handle, _ZEROS[: nbytes - written], written)
