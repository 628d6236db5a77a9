"""A fork server: a process that imports the libraries once and forks those that need them.

Importing torch, timm and torchvision takes seconds of every process and hundreds of megabytes, and
forked processes share both. A server runs no threads and never touches a device, so that its forks
are sound. Only Linux promises that libraries survive a fork.
"""

import errno
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from vitarium.core.errors import VitariumError

_PROGRAM = "from vitarium.engine.pools._fork_server import main; main()"
_NUMBER = struct.Struct("i")


class ForkedProcess:
    """A process that a server has forked; its methods are those of subprocess.Popen.

    Where the server was killed, nobody knows how its processes end: EOFError.
    """

    def __init__(self, pid: int, status: Connection) -> None:
        self.pid, self._status = pid, status
        self._returncode: int | None = None

    def poll(self) -> int | None:
        return self.wait() if self._returncode is None and self._status.poll() else self._returncode

    def wait(self) -> int:
        if self._returncode is None:
            with self._status:
                (self._returncode,) = _NUMBER.unpack(self._status.recv_bytes())
        return self._returncode

    def kill(self) -> None:
        if self.poll() is None:  # else its number may be another process's
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """Started by `start` or the first `fork`, and again where it is gone.

    It ends with the process that it serves.

    modules: what it imports. environment: its own, which libraries read as they are imported.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._modules, self._environment = modules, dict(environment)
        self._control: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def start(self) -> None:
        """Let it import in the background, so that the first fork has less to wait for."""
        with self._lock:
            self._control = self._control or self._start()

    def fork(
        self, target: str, arguments: Sequence[str] = (), *, files: Sequence[int] = ()
    ) -> ForkedProcess:
        """Run the function "module:name", which has no parameters, in a process of its own.

        `sys.argv[1:]` are the arguments and then the numbers of the files that it shares with this
        process. Environment, import path and working directory are this process's; output and
        errors are the server's. Raises VitariumError where no process can be started.
        """
        order = {
            "target": target,
            "arguments": [target, *arguments],
            "environment": dict(os.environ),
            "path": [entry for entry in sys.path if isinstance(entry, str)],  # no Path counts
        }
        folder = os.open(".", os.O_RDONLY)
        try:
            with self._lock:
                if self._control:
                    with suppress(EOFError, OSError):  # it was killed, as for want of memory
                        return self._fork(order, [folder, *files])
                self._control = None
                return self._fork(order, [folder, *files])
        except (EOFError, OSError) as error:
            raise VitariumError(f"no worker process can be started: {error!r}") from error
        finally:
            os.close(folder)

    def _fork(self, order: Mapping[str, Any], files: Sequence[int]) -> ForkedProcess:
        control = self._control = self._control or self._start()
        reader, writer = os.pipe()
        status = Connection(reader, writable=False)
        try:
            control.send_bytes(json.dumps({**order, "files": len(files)}).encode())
            with socket.socket(fileno=os.dup(control.fileno())) as channel:
                socket.send_fds(channel, [b"."], [writer, *files])
            (pid,) = _NUMBER.unpack(control.recv_bytes())
            if pid < 0:
                why = f"{os.strerror(-pid)}; see `ulimit -u`"
                raise VitariumError(f"no worker process can be started: {why}")
        except BaseException:
            status.close()
            raise
        finally:
            os.close(writer)
        return ForkedProcess(pid, status)

    def _start(self) -> Connection:
        engine_end, server_end = socket.socketpair()
        with server_end:
            handle = server_end.fileno()
            arguments = [str(handle), *self._modules]
            self._process = run_python(_PROGRAM, arguments, handle, self._environment)
        return Connection(engine_end.detach())


def run_python(
    program: str, arguments: Sequence[str], handle: int, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """A new Python with this process's import path, which shares the file `handle` with it."""
    path = os.pathsep.join(entry for entry in sys.path if entry and isinstance(entry, str))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, *arguments],
        pass_fds=[handle],
        stdin=subprocess.DEVNULL,
        env={**environment, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for the engine alone, which stops its workers
    )


def main() -> None:
    """What a server runs, until the process that it serves is gone; its forks run their targets."""
    control = Connection(int(sys.argv[1]))
    gc.disable()  # it would look again and again through all that is imported
    for module in sys.argv[2:]:
        import_module(module)
    gc.enable()
    statuses: dict[int, Connection] = {}

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with suppress(OSError), statuses.pop(ended[0]) as status:
                    status.send_bytes(_NUMBER.pack(os.waitstatus_to_exitcode(ended[1])))

    signal.signal(signal.SIGCHLD, reap)
    while True:
        try:
            order = json.loads(control.recv_bytes())
            with socket.socket(fileno=os.dup(control.fileno())) as channel:
                _, (status, *files), *_ = socket.recv_fds(channel, 1, 1 + order["files"])
        except (EOFError, OSError, ValueError):
            os._exit(0)
        # a process may end before its number is known here
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            pid = os.fork()
        except OSError as error:  # there are as many processes as there may be
            pid = -(error.errno or errno.EAGAIN)
        if pid == 0:
            break
        statuses[pid] = Connection(status, readable=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for file in files:
            os.close(file)
        with suppress(OSError):
            control.send_bytes(_NUMBER.pack(pid))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.setsid()
    os.close(status)
    for connection in (control, *statuses.values()):
        connection.close()
    _become(order, *files)


def _become(order: Mapping[str, Any], folder: int, *files: int) -> None:
    """Run the target as the program of a process with the order's environment."""
    os.fchdir(folder)
    os.close(folder)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path[:] = order["path"]
    sys.argv = [*order["arguments"], *map(str, files)]
    module, _, name = order["target"].partition(":")
    getattr(import_module(module), name)()
