"""Mapped files are as large as their disk has room for, which is known when they are made."""

import errno
import os

import pytest
import torch

from vitarium.core.errors import DiskFull, NotWritable
from vitarium.core.scratch import scratch, temporary_folder


def unsupported(*arguments):
    raise OSError(errno.EOPNOTSUPP, "not on this disk")


@pytest.fixture(params=["reserved", "written", "unsupported"])
def _system(request, monkeypatch):
    """With a system call that takes room, without, and on a disk that knows no such thing."""
    if request.param == "written":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    if request.param == "unsupported":
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)


@pytest.mark.usefixtures("_system")
def test_a_mapped_tensor_is_written_through(tmp_path):
    tensor = scratch(tmp_path / "file", 300_000, torch.float64)
    tensor.copy_(torch.arange(300_000))
    assert (tmp_path / "file").stat().st_size == 8 * 300_000
    assert torch.equal(scratch_again(tmp_path / "file"), tensor)


def scratch_again(path):
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float64)


@pytest.mark.usefixtures("_system")
def test_too_small_a_disk_is_an_error_and_not_the_end_of_the_process(disk):
    folder = disk("200k")
    with pytest.raises(DiskFull, match=r"no space left for .*file"):
        scratch(folder / "file", 100_000, torch.float32)


def test_a_temporary_folder_has_gone_in_the_end(tmp_path):
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
    assert not folder.exists()


def test_where_there_can_be_no_temporary_folder_it_says_so(disk, remount_read_only):
    folder = disk("16k")
    remount_read_only(folder)
    with pytest.raises(NotWritable, match=f"{folder} is on a disk"), temporary_folder(folder):
        pass
