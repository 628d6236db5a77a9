"""One writer at a time: who grows a zoo holds its lock."""

import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vitarium.core import files
from vitarium.core.errors import LeadsOutside, UnusablePath, ZooInUse
from vitarium.core.file_faults import fault
from vitarium.zoo._retired import restore_retired

_GRACE = 3.0  # seconds that the workers of an engine which was just killed may take to end


@contextmanager
def held(
    zoo: Path, *, wait: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Hold the zoo's lock, so that no other process writes into it.

    The operating system gives the lock back when its holder's process ends, however it ends: what
    a dead process held is simply taken over, and a model that it was replacing is put back.

    Args:
        wait: until the present holder is done, instead of giving up.
        say: is told whom we wait for, and whose lock was taken over.

    Raises ZooInUse that names the holder and since when, NotWritable or DiskFull at once where the
    zoo cannot be written, and LeadsOutside for a lock that is a link: what that leads to would be
    emptied.
    """
    path, note = zoo / ".lock", zoo / ".holder.json"
    if path.is_symlink():
        raise LeadsOutside(path, zoo)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_GRACE, poll_interval=0.1)
    except Timeout:
        if not wait:
            raise ZooInUse(zoo, holder(zoo)) from None
        say(f"waiting for {holder(zoo)}")
        lock.acquire(poll_interval=0.5)
    except OSError as error:
        raise fault(error, path, writing=True) from None
    if os.path.lexists(note):
        say(f"taken over from {holder(zoo)}, which has ended")
    try:
        with suppress(UnusablePath):  # it is for people; the lock does without
            user = str(os.getuid())
            with suppress(KeyError, OSError):  # a user without a name
                user = getpass.getuser()
            facts = {"user": user, "host": socket.gethostname()}
            files.write_json(note, {**facts, "pid": os.getpid(), "since": time.time()})
        restore_retired(zoo)
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def bases_stay(zoo: Path) -> Iterator[None]:
    """Wait until nobody removes or replaces weights, and let nobody begin.

    For who builds on weights without holding the zoo, which may be growing meanwhile, and for who
    removes them. Raises NotWritable, DiskFull and LeadsOutside.
    """
    path = zoo / ".removal.lock"
    if path.is_symlink():
        raise LeadsOutside(path, zoo)
    lock = FileLock(path)
    try:
        lock.acquire(poll_interval=0.05)
    except OSError as error:
        raise fault(error, path, writing=True) from None
    try:
        yield
    finally:
        lock.release()


def is_held(zoo: Path) -> bool | None:
    """Whether a process of this machine holds the zoo's lock; None where its disk knows no locks.

    It is looked at for an instant, in which who wants the lock waits: see `_GRACE`.
    """
    try:
        handle = os.open(zoo / ".lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def holder(zoo: Path) -> str:
    """Who holds the zoo's lock, and since when, in words on one line."""
    try:
        note: dict[str, Any] = json.loads((zoo / ".holder.json").read_text("utf-8"))
        since = datetime.fromtimestamp(note["since"]).astimezone()
        who = f"{note['user']} on {note['host']} (process {note['pid']})"
        words = f"{who}, since {since:%Y-%m-%d %H:%M:%S %Z}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        words = ""
    return words if words.isprintable() and words else "another process"
