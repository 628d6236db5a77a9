"""Ctrl-C that is not lost."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupts:
    """Inside, Ctrl-C raises KeyboardInterrupt, and `check` raises it again.

    Python drops an exception that is raised while it cleans up after itself (in a destructor or a
    weak reference's callback), and with it a Ctrl-C that falls into that moment.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: signal._HANDLER = None

    def __enter__(self) -> "Interrupts":
        self._ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._ours:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: object, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self._came:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt
