"""What test_fork_server.py runs in forked processes. It notes every time that it is imported."""

import errno
import json
import os
import sys
import time
from pathlib import Path

if "NO_PROCESSES" in os.environ:

    def refuse():
        raise BlockingIOError(errno.EAGAIN, "as many processes as there may be")

    os.fork = refuse
if "IMPORTS" in os.environ:
    with Path(os.environ["IMPORTS"]).open("a") as tally:
        tally.write("x")


def report() -> None:
    """Write what this process is to the file that it shares with its engine."""
    *arguments, handle = sys.argv[1:]
    process = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "variable": os.environ.get("VARIABLE"),
        "path": sys.path[0],
        "leads its session": os.getsid(0) == os.getpid(),
        "parent": os.getppid(),
    }
    with os.fdopen(int(handle), "w") as file:
        json.dump(process, file)


def leave() -> None:
    sys.exit(int(sys.argv[1]))


def fail() -> None:
    raise RuntimeError("a fault on purpose")


def wait() -> None:
    time.sleep(600)


def serve() -> None:
    """An engine: forks a process that waits, writes both numbers, and waits to be killed."""
    from vitarium.engine.pools._fork_server import ForkServer

    server = ForkServer([], os.environ)  # whoever drops it ends it
    process = server.fork("engine.fork_targets:wait")
    print(process.pid, flush=True)
    wait()
