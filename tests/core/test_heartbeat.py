"""Lines while something takes long."""

import threading

import pytest

from vitarium.core import heartbeat
from vitarium.core.heartbeat import Heartbeat


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(heartbeat, "FIRST", 0.0)
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.001)


def test_it_beats_until_it_is_left(fast):
    seconds, enough = [], threading.Event()

    def beat(elapsed):
        seconds.append(elapsed)
        if len(seconds) == 3:
            enough.set()

    with Heartbeat(beat) as beats:
        assert enough.wait(60)
    count = len(seconds)
    assert beats.beats == count >= 3
    assert seconds == sorted(seconds)
    assert beats.seconds >= seconds[-1]
    assert not beats._thread.is_alive()


def test_what_is_done_soon_has_no_beat(monkeypatch):
    monkeypatch.setattr(heartbeat, "FIRST", 1e6)
    with Heartbeat(pytest.fail) as beats:
        pass
    assert beats.beats == 0


def test_an_error_inside_ends_it_and_is_raised(fast):
    beats = Heartbeat(lambda seconds: None)
    with pytest.raises(KeyboardInterrupt), beats:
        raise KeyboardInterrupt
    assert not beats._thread.is_alive()
