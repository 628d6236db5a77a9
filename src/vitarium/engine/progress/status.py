"""Keeps `growth.json` of a zoo that grows, from which others see how far it is."""

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from vitarium.core.errors import VitariumError
from vitarium.core.printable import printable, shortened
from vitarium.engine.events import Event
from vitarium.engine.progress.tracker import Tracker
from vitarium.zoo import growth_status
from vitarium.zoo.growth_status import HEARTBEAT_SECONDS, GrowthStatus, State

_WRITE_SECONDS = 1.0
_LARGEST_SHARE = 1e-3
"""Of a core's time, that may be spent on it."""
_MAX_TEXT = 2000


class StatusWriter:
    """A listener that writes `growth.json` about once a second, on a thread of its own.

    Of hundreds of models in training at a time it is written less often, but every five seconds.

    Entered while the zoo's lock is held; leaving it writes how growing ended. A disk that cannot
    be written costs the file, and nothing else.

    Args:
        seconds_left: asked while an event is handled, at most once a second.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        zoo: Path,
        tracker: Tracker,
        seconds_left: Callable[[], float | None] = lambda: None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._zoo, self._tracker, self._clock = zoo, tracker, clock
        self._seconds_left = seconds_left
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="growth-status", daemon=True)
        self._estimate: float | None = None
        self._estimated_at = clock()
        self._state: State = "growing"
        self._message = ""
        self._has_news = True
        command = command_line()
        self._process = {
            "host": printable(socket.gethostname()),
            "pid": os.getpid(),
            "command": command,
            "folder": printable(str(Path.cwd())) if command else "",
        }

    def __call__(self, event: Event) -> None:
        with self._lock:
            now = self._clock()
            self._tracker.add(event, now)
            self._has_news = True
            if self._estimate is None or abs(now - self._estimated_at) >= _WRITE_SECONDS:
                self._estimated_at, self._estimate = now, self._seconds_left()

    def status(self) -> GrowthStatus:
        """As it is now."""
        with self._lock:
            now, left = self._clock(), self._estimate
            if left is not None:
                left = max(left - (now - self._estimated_at), 0.0)
            state = {"state": self._state, "message": self._message, "seconds_left": left}
            return self._tracker.status(now, **self._process, **state)

    def _write(self) -> float:
        """Returns for how many seconds it kept a core busy."""
        started = time.thread_time()
        self._has_news = False
        with suppress(VitariumError, OSError):  # it is for who looks on; growing does without
            growth_status.write(self._zoo, self.status())
        return time.thread_time() - started

    def _run(self) -> None:
        written, pause = time.monotonic(), _WRITE_SECONDS
        while not self._end.wait(pause):
            if self._has_news or time.monotonic() - written >= HEARTBEAT_SECONDS:
                busy = self._write()
                written = time.monotonic()
                pause = min(max(_WRITE_SECONDS, busy / _LARGEST_SHARE), HEARTBEAT_SECONDS)

    def __enter__(self) -> Self:
        with suppress(VitariumError, OSError):
            growth_status.discard_leftovers(self._zoo)
        self._write()
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
        if error is None:
            self._state = "finished" if self._tracker.is_complete else "incomplete"
            self._estimate = 0.0
        elif isinstance(error, KeyboardInterrupt):
            self._state = "interrupted"
        else:
            self._state = "broken"
            text = str(error) if isinstance(error, VitariumError) else repr(error)
            self._message = shortened(printable(text), _MAX_TEXT)
        self._write()


def command_line() -> str:
    """The command that this process was started with, where it is vitarium's; else empty."""
    program = Path(sys.argv[0])
    if program.name != "vitarium" and program.parts[-2:] != ("vitarium", "__main__.py"):
        return ""
    return printable(shlex.join(["vitarium", *sys.argv[1:]]))
