"""A line now and then while something takes long, for output that is no terminal."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

FIRST, INTERVAL = 2.0, 30.0
"""Seconds until the first beat, and from one to the next; what is done sooner has none."""


class Heartbeat:
    """Calls `beat` with the seconds so far, on a thread of its own, as long as it is entered."""

    def __init__(self, beat: Callable[[float], None]) -> None:
        self._beat, self._end, self._started = beat, threading.Event(), time.monotonic()
        self.beats = 0
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def seconds(self) -> float:
        """Since it was entered."""
        return time.monotonic() - self._started

    def _run(self) -> None:
        pause = FIRST
        while not self._end.wait(pause):
            self.beats += 1
            self._beat(self.seconds)
            pause = INTERVAL

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
