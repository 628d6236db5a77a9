"""The process that computes what takes torch: one answer after the other, until it is stopped."""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitarium.core.errors import VitariumError

FUNCTIONS = {
    "behavior": "vitarium.page.behavior:behavior",
    "attention": "vitarium.page.behavior:attention",
    "pair": "vitarium.explorer.pairs:pair",
    "barrier": "vitarium.explorer.pairs:barrier",
    "agreement": "vitarium.explorer.matrices:agreement",
    "weight_distances": "vitarium.explorer.matrices:weight_distances",
    "reproduction": "vitarium.page.reproduction:reproduction_page",
    "download": "vitarium.explorer.downloads:download",
    "embedding": "vitarium.explorer.embeddings:embedding",
    "embedding_choices": "vitarium.explorer.embeddings:embedding_choices",
    "relatives": "vitarium.explorer.embeddings:relatives",
}
"""What can be computed: functions of a zoo's path and texts, which give JSON."""


_LONGEST_SOCKET_NAME = 107
"""Bytes of a Unix socket's path on Linux."""
_IMPORTED = ["vitarium.explorer._preloaded"]


class Computed(NamedTuple):
    """An answer as JSON; whether it holds as long as the models do, so that it can be kept."""

    content: bytes
    is_lasting: bool


class Transient(dict[str, Any]):
    """An answer of one of these functions that is not kept: the next may be another."""


class ComputationFailed(Exception):
    """The process ended, or met an error that is none of the zoo's."""


def start_method() -> Literal["forkserver", "spawn"]:
    """How the process is started.

    By `forkserver` one that has been stopped is replaced at once: torch is imported in what it is
    forked from. Its socket has a name in the folder of temporary files, which may be too long; and
    other systems than Linux have libraries of matrix products that do not stand a fork.
    """
    name = f"{tempfile.gettempdir()}/pymp-12345678/listener-12345678"
    fits = len(os.fsencode(name)) <= _LONGEST_SOCKET_NAME
    return "forkserver" if fits and sys.platform == "linux" else "spawn"


def prepare() -> None:
    """Let torch be imported where processes are forked from, without waiting for it."""
    if start_method() == "forkserver":
        forkserver.set_forkserver_preload(_IMPORTED)
        # what is started inherits the mask: Ctrl-C, which ends the server, does not disturb it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Computation:
    """The process; it has imported torch once it answers."""

    def __init__(self, zoo: Path) -> None:
        context: Any = get_context(start_method())
        prepare()
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, zoo), daemon=True)
        self._process.start()
        remote.close()

    def run(self, name: str, arguments: Sequence[str]) -> Computed:
        """Waits for the answer. Raises ComputationFailed."""
        try:
            self._connection.send((name, arguments))
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            reason = f"the process that computes it ended (exit code {self._process.exitcode})"
            raise ComputationFailed(reason) from None
        if kind == "failed":
            raise ComputationFailed(content)
        return Computed(content, kind == "computed")

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stop(self) -> None:
        """End it, whatever it is computing."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, zoo: Path) -> None:
    """Answers requests until the server's end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends this process
    import vitarium.explorer._preloaded  # noqa: F401 (it is there when the first request comes)

    with suppress(EOFError, OSError):
        while True:
            connection.send(_compute(zoo, *connection.recv()))


def _compute(zoo: Path, name: str, arguments: Sequence[str]) -> tuple[str, Any]:
    module, _, function = FUNCTIONS[name].partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(zoo, *arguments)
        kind = "transient" if isinstance(answer, Transient) else "computed"
        return kind, json.dumps(answer, separators=(",", ":")).encode()
    except VitariumError as error:
        return "refused", json.dumps({"refused": str(error)}).encode()
    except Exception:
        return "failed", traceback.format_exc()
