"""What a system refuses is an error that says what stands in the way, and what to do."""

import errno
import os
import shutil

import pytest
from safetensors import SafetensorError

from vitarium.core import files
from vitarium.core.errors import (
    CorruptFile,
    DiskFull,
    FileFault,
    NotReadable,
    NotWritable,
    UnusablePath,
    WriteFault,
)
from vitarium.core.file_faults import check_file, check_writable, not_writable, reading, writing


def refuse(number):
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "no space left for .*make room"),
        (errno.EDQUOT, DiskFull, "no space left for .*make room"),
        (errno.EACCES, NotWritable, "choose another folder"),
        (errno.EPERM, NotWritable, "choose another folder"),
        (errno.EROFS, NotWritable, "choose another folder"),
        (errno.ENAMETOOLONG, UnusablePath, "too long .*choose a shorter one"),
        (errno.ENOTDIR, UnusablePath, "is a file, not a folder; choose another path"),
        (errno.EISDIR, UnusablePath, "is a folder, not a file; choose another path"),
        (errno.ENOENT, UnusablePath, "no such file or folder; check the path"),
        (errno.EIO, WriteFault, "the disk reports an error; see the system's log"),
        (errno.EMFILE, WriteFault, "too many files are open; allow more"),
        (errno.ENODEV, WriteFault, "No such device"),
    ],
)
def test_what_cannot_be_written_says_why_and_what_to_do(tmp_path, number, kind, words):
    path = tmp_path / "file"
    with pytest.raises(kind, match=words) as caught, writing(path):
        refuse(number)
    assert str(path) in str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.exit_status == (2 if kind is UnusablePath else 1)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, NotReadable),
        (errno.EIO, FileFault),
        (errno.ELOOP, UnusablePath),
        (errno.ENOENT, FileNotFoundError),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, number, kind):
    with pytest.raises(kind) as caught, reading(tmp_path / "file"):
        refuse(number)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: No space left on device (os error 28)"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
        RuntimeError("Detail: [errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_known_from_the_words_of_libraries(tmp_path, error):
    with pytest.raises(DiskFull), writing(tmp_path / "file"):
        raise error


@pytest.mark.parametrize("error", [ValueError("28"), KeyError("x"), CorruptFile(None, "x")])
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing(tmp_path / "file"):
        raise error
    assert caught.value is error


def test_a_folder_of_another_user_is_told_with_both_names(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 123_456)
    message = str(not_writable(tmp_path / "not" / "there"))
    assert f"{tmp_path} belongs to " in message
    assert "and you are user 123456; choose another folder" in message


def test_of_a_zoo_a_copy_is_advised_or_to_make_it_writable(tmp_path):
    (tmp_path / "zoo.json").touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models").chmod(0o555)
    message = str(not_writable(tmp_path / "models" / "3f2a" / "model.json"))
    assert f"{tmp_path / 'models'} is marked as read-only; copy the zoo" in message
    assert f"chmod -R u+w {tmp_path}" in message


def test_what_a_file_is_to_replace_is_checked_before(tmp_path):
    (tmp_path / "file").touch()
    check_file(tmp_path / "file")
    check_writable(tmp_path / "new" / "folder")
    with pytest.raises(UnusablePath, match="is a folder, not a file"):
        check_file(tmp_path)
    with pytest.raises(UnusablePath, match="is a file, not a folder"):
        check_writable(tmp_path / "file" / "folder")
    with pytest.raises(UnusablePath, match="too long"):
        check_file(tmp_path / ("n" * 300))


def test_a_read_only_disk_is_found_before_anything_is_done(disk, remount_read_only):
    folder = disk("100k")
    (folder / "folder").mkdir()
    remount_read_only(folder)
    with pytest.raises(
        NotWritable, match=f"{folder / 'folder'} is on a disk that can only be read"
    ):
        check_writable(folder / "folder" / "new")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_reading_would_not_end_of_is_refused(tmp_path, kind):
    path = tmp_path / "zoo.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UnusablePath, match=r"zoo\.json: it is a pipe or a device"):
        files.read(path)


def test_links_in_a_circle_are_named(tmp_path):
    (tmp_path / "index").symlink_to("index")
    with pytest.raises(UnusablePath, match="links lead in a circle"):
        files.check_inside(tmp_path / "index", tmp_path)
