"""What a system says of files that it does not read or write, as errors that say what to do.

Whatever touches files goes through `reading` or `writing`, so that a full disk, a read-only one or
another user's folder is told in one line wherever it is met.
"""

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitarium.core.errors import (
    DiskFull,
    FileFault,
    NotReadable,
    NotWritable,
    UnusablePath,
    VitariumError,
    WriteFault,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNUSABLE = {
    errno.ENAMETOOLONG: "its name is too long for this disk; choose a shorter one",
    errno.ENOTDIR: "a part of it is a file, not a folder; choose another path",
    errno.EEXIST: "a part of it is a file, not a folder; choose another path",
    errno.EISDIR: "it is a folder, not a file; choose another path",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ELOOP: "its links lead in a circle; choose another path",
    errno.EILSEQ: "this disk takes no such name; choose another one",
}
_TROUBLE = {
    errno.EIO: "the disk reports an error; see the system's log, and copy what can still be read",
    errno.EMFILE: "too many files are open; allow more (`ulimit -n 4096`) and try again",
    errno.ENFILE: "too many files are open on this machine; close some programs and try again",
    errno.EFBIG: "it is larger than this disk, or `ulimit -f`, allows",
    errno.ESTALE: "it has gone on the server; mount the disk again",
}
_NUMBER = re.compile(r"(?:os error|[Ee]rrno) (\d+)")
"""How libraries in other languages, and lists of errors, write an OSError's number."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside, files are read: NotReadable, UnusablePath, FileFault; FileNotFoundError as ever."""
    try:
        yield
    except (VitariumError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno is None:  # of a connection, say
            raise
        name = error.filename
        raise fault(error, Path(name) if isinstance(name, str) else path, writing=False) from None


def check_regular(path: Path) -> None:
    """Raises UnusablePath for a pipe or a device, of which reading would not end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnusablePath(path, f"cannot read {path}: it is a pipe or a device, not a file")


def resolved(path: Path) -> Path:
    """The path without links. Raises UnusablePath where its links lead in a circle."""
    try:
        return path.resolve()
    except (RuntimeError, OSError):  # RuntimeError: before Python 3.13
        raise UnusablePath(path, f"cannot read {path}: {_UNUSABLE[errno.ELOOP]}") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, files are written, by us or a library: WriteFault (DiskFull, ...), UnusablePath."""
    try:
        yield
    except VitariumError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and _number(error) is None:
            raise
        raise fault(error, path, writing=True) from None


def fault(error: Exception, path: Path, *, writing: bool) -> FileFault:
    """The error to raise for one of the system's, or of a library that quotes it."""
    number = _number(error)
    if number in _FULL:
        return DiskFull(path)
    if number in _DENIED:
        return not_writable(path) if writing or number == errno.EROFS else not_readable(path)
    what = "write" if writing else "read"
    if number in _UNUSABLE:
        return UnusablePath(path, f"cannot {what} {path}: {_UNUSABLE[number]}")
    reason = _TROUBLE.get(number or 0) or (os.strerror(number) if number else str(error))
    kind = WriteFault if writing else FileFault
    return kind(path, f"cannot {what} {path}: {reason}")


def check_file(path: Path) -> None:
    """As `check_writable`, of a file that is to be written or replaced."""
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises NotWritable and UnusablePath before the work whose result is to go there, or below."""
    with writing(folder):
        nearest = next(path for path in _upwards(folder) if path.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(nearest))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise not_writable(folder)


def not_writable(path: Path) -> NotWritable:
    """The error that says who or what keeps a file from being written."""
    obstacle = _obstacle(path)
    if obstacle.is_file() and not os.access(obstacle.parent, os.W_OK):
        obstacle = obstacle.parent
    zoo = next((f for f in _upwards(path) if os.access(f / "zoo.json", os.F_OK)), None)
    remedy = "copy the zoo and work on the copy" if zoo else "choose another folder"
    if os.statvfs(obstacle).f_flag & os.ST_RDONLY:
        return NotWritable(path, f"{obstacle} is on a disk that can only be read", remedy)
    status = obstacle.stat()
    if status.st_uid != os.geteuid():
        return NotWritable(path, _owned(obstacle, status.st_uid), remedy)
    if not status.st_mode & stat.S_IWUSR:
        command = shlex.join(["chmod", *(["-R"] if zoo else []), "u+w", str(zoo or obstacle)])
        remedy = f"{remedy}, or make it writable: {command}"
        return NotWritable(path, f"{obstacle} is marked as read-only", remedy)
    return NotWritable(path, f"the system does not allow it in {obstacle}", remedy)


def not_readable(path: Path) -> NotReadable:
    """The error that says who or what keeps a file from being read."""
    obstacle = _obstacle(path)
    status = obstacle.stat()
    if status.st_uid != os.geteuid():
        owner = _owned(obstacle, status.st_uid)
        return NotReadable(path, owner, "ask its owner for the right to read it")
    if not status.st_mode & stat.S_IRUSR:
        command = shlex.join(["chmod", "-R", "u+rX", str(obstacle)])
        return NotReadable(path, f"{obstacle} is marked as unreadable", f"change that: {command}")
    return NotReadable(path, f"the system does not allow it in {obstacle}", "ask its administrator")


def _number(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    quoted = _NUMBER.search(str(error))
    return int(quoted[1]) if quoted else None


def _upwards(path: Path) -> list[Path]:
    absolute = path.absolute()
    return [absolute, *absolute.parents]


def _obstacle(path: Path) -> Path:
    """The outermost folder that may not be entered; else the innermost path that is there."""
    innermost = Path(path.absolute().anchor)
    for inner in reversed(_upwards(path)):
        if not os.access(inner, os.F_OK):
            break
        innermost = inner
        if inner.is_dir() and not os.access(inner, os.X_OK):
            break
    return innermost


def _owned(path: Path, owner: int) -> str:
    import pwd

    names = []
    for user in (owner, os.geteuid()):
        try:
            names.append(pwd.getpwuid(user).pw_name)
        except KeyError:
            names.append(f"user {user}")
    return f"{path} belongs to {names[0]}, and you are {names[1]}"
