"""Ctrl-C that is not lost, and an end that comes by the clock."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter


class TimeIsUp(KeyboardInterrupt):
    """As Ctrl-C: what is finished is kept, the rest is left as it is."""


class TimeLimit:
    """A context that `check` ends after so many minutes from now, by TimeIsUp; None: never.

    Raises InvalidInput for minutes that are not positive.
    """

    is_up = False

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not minutes > 0:
            name = parameter("max_minutes", minutes)
            raise InvalidInput(f"{name}: give the minutes after which growing ends")
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raises TimeIsUp."""
        if self._end is not None and time.monotonic() >= self._end:
            self.is_up = True
            raise TimeIsUp

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *fault: object) -> bool:
        return kind is TimeIsUp


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Inside, Ctrl-C raises KeyboardInterrupt; calling what this gives raises it again.

    Python drops an exception that is raised while it cleans up after itself (in a destructor or a
    weak reference's callback), and with it a Ctrl-C that falls into that moment.
    """
    pressed = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    ours = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, note) if ours else None
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
