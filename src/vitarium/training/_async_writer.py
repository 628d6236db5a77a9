"""Puts epochs on disk while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

_THREADS = 4  # most of writing is waiting for the disk: they pay even on busy cores


class AsyncWriter:
    """Puts an epoch on disk while the next one is trained.

    Leaving the context waits for what is under way, also when training was interrupted.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="writing")
        self._under_way: list[tuple[Future[Any], Callable[[Any], None]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._pool.shutdown(wait=True)

    def submit(self, write: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Let `write` run; `settle` calls `then` with what it returned, in the caller's thread."""
        self._under_way.append((self._pool.submit(write), then))

    def settle(self, *, wait: bool = True) -> None:
        """Call what follows on finished writes, in order; raises what a write raised."""
        while self._under_way and (wait or self._under_way[0][0].done()):
            future, then = self._under_way.pop(0)
            then(future.result())
