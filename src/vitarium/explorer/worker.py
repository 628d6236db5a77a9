"""Answers that take torch: computed once, in turn, and only as long as somebody waits for them."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from vitarium.explorer.answer_cache import AnswerCache
from vitarium.explorer.computation import Computation, ComputationFailed, Computed, prepare

_GRACE_SECONDS = 3.0
"""For which an answer is computed that nobody waits for: a page that is reloaded asks again."""
_POLL_SECONDS = 0.3
_UNCACHED = {"reproduction", "download", "embedding_choices"}
"""Quick, or said to be run: the cache of a zoo from elsewhere may hold anything."""


class Abandoned(Exception):
    """Who asked is gone."""


@dataclass(eq=False)
class _Job:
    task: "asyncio.Task[bytes]"
    waiting: int = 0


class Worker:
    """Computes answers in a process beside the server, so that this stays small and quick."""

    def __init__(self, zoo: Path) -> None:
        self._zoo = zoo
        self._cache = AnswerCache(zoo)
        self._computation: Computation | None = None
        self._is_closed = False
        self._starting = Lock()
        self._jobs: dict[tuple[str, ...], _Job] = {}
        self._turn = asyncio.Lock()

    async def answer(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        version: str,
        is_gone: Callable[[], Awaitable[bool]],
        folder: Path | None = None,
    ) -> bytes:
        """What a function of `computation.FUNCTIONS` gives, as JSON; `{"refused": why}` without.

        Args:
            version: of what it is computed from; as long as it is the same, so is the answer.
            is_gone: whether nobody waits for it any more.
            folder: that it writes into; is removed when it ends after nobody waited any more.

        Raises Abandoned and ComputationFailed.
        """
        key = (name, *arguments, version)
        if name not in _UNCACHED:
            cached = await asyncio.to_thread(self._cache.get, key)
            if cached is not None:
                return cached
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(asyncio.create_task(self._compute(key, arguments)))
        job.waiting += 1
        try:
            while not (await asyncio.wait({job.task}, timeout=_POLL_SECONDS))[0]:
                if await is_gone():
                    raise Abandoned
            return job.task.result()
        except ComputationFailed:
            if self._is_closed:
                raise Abandoned from None
            raise
        finally:
            job.waiting -= 1
            if not job.waiting:
                if folder and not job.task.done():
                    job.task.add_done_callback(lambda _: shutil.rmtree(folder, ignore_errors=True))
                job.task.cancel()
                self._jobs.pop(key, None)

    def warm_up(self) -> None:
        """Import torch before the first answer is asked for; does not wait for it."""
        prepare()

    def start(self) -> None:
        """Start the process where there is none, and none has been stopped for good by `close`."""
        with self._starting:
            if self._is_closed or (self._computation and self._computation.is_alive):
                return
            self._computation = Computation(self._zoo)

    def open(self) -> None:
        """Compute again after `close`, where an application is started anew."""
        self._is_closed = False

    def close(self) -> None:
        """End the process; what it was computing is dropped."""
        with self._starting:
            self._is_closed = True
        if self._computation:
            self._computation.stop()

    async def _compute(self, key: tuple[str, ...], arguments: Sequence[str]) -> bytes:
        async with self._turn:
            await asyncio.to_thread(self.start)
            if self._is_closed or not self._computation:
                raise ComputationFailed("the server ends")
            running = asyncio.create_task(
                asyncio.to_thread(self._computation.run, key[0], arguments)
            )
            try:
                computed = await asyncio.shield(running)
            except asyncio.CancelledError:
                await self._abandon(running, key)
                raise
            await self._keep(computed, key)
            return computed.content

    async def _abandon(self, running: "asyncio.Task[Computed]", key: tuple[str, ...]) -> None:
        """Lets what is nearly computed end; else ends the process."""
        done, _ = await asyncio.wait({running}, timeout=_GRACE_SECONDS)
        if not done and self._computation:
            await asyncio.to_thread(self._computation.stop)
        with suppress(Exception):
            await self._keep(await running, key)

    async def _keep(self, computed: Computed, key: tuple[str, ...]) -> None:
        if computed.is_lasting and key[0] not in _UNCACHED:
            await asyncio.to_thread(self._cache.put, key, computed.content)
