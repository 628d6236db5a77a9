"""A Ctrl-C counts, also where Python drops the exception that it raises."""

import signal
from contextlib import suppress

import pytest

from vitarium.engine.interrupts import interrupts


def test_an_interrupt_that_was_dropped_is_raised_at_the_next_check():
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as check:
        check()
        with suppress(KeyboardInterrupt):  # as a destructor would
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before
