"""One process beside the server for answers that take torch: the server stays small and quick."""

import asyncio
import json
import signal
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vitarium.core.errors import VitariumError

_REMEMBERED = 64
"""Answers that are given again without computing them."""
Answer = dict[str, Any]


class Worker:
    """Computes one answer after the other; started with the first, ended by `close`."""

    def __init__(self, zoo: Path) -> None:
        self._zoo = zoo
        self._pool: ProcessPoolExecutor | None = None
        self._answers: OrderedDict[tuple[str, ...], bytes] = OrderedDict()

    async def answer(self, name: str, *ids: str, stamp: str) -> bytes:
        """A function of `behavior` or `pairs` for models, as JSON; `{"refused": why}` without one.

        Args:
            stamp: as long as it is the same, so is the answer.
        """
        key = (name, *ids, stamp)
        if key not in self._answers:
            loop = asyncio.get_running_loop()
            computed = loop.run_in_executor(self._started(), _compute, name, self._zoo, *ids)
            self._answers[key] = await computed
        self._answers.move_to_end(key)
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return self._answers[key]

    def close(self) -> None:
        """End the process; what it was computing is dropped."""
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _ignore_interrupts)
        return self._pool


def _ignore_interrupts() -> None:
    """Ctrl-C is the server's, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compute(name: str, zoo: Path, *ids: str) -> bytes:
    from vitarium.explorer import behavior, pairs

    functions: dict[str, Callable[..., Answer]] = {
        "behavior": behavior.behavior,
        "attention": behavior.attention,
        "pair": pairs.pair,
    }
    try:
        answer = functions[name](zoo, *ids)
    except VitariumError as error:
        answer = {"refused": str(error)}
    return json.dumps(answer, separators=(",", ":")).encode()
