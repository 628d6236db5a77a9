"""Faults of the hub: a line that says what to do, whatever the library had to say."""

import importlib
import logging
import re

import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import errors

from vitarium.core.hub_faults import hub_fault, quiet_hub

httpx = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])
"""What the hub's library makes its requests with depends on its version."""
REQUEST = httpx.Request("GET", "https://huggingface.co/api/datasets/me/x")
LONG = "Client Error. (Request ID: Root=1)\n\nRepository Not Found for url: x.\nPlease make sure"


def answered(kind, status):
    return kind(LONG, response=httpx.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (answered(errors.GatedRepoError, 403), "access to it is restricted: ask for it"),
        (answered(errors.RepositoryNotFoundError, 401), "none of that name, or it is private"),
        (DatasetNotFoundError("Dataset 'x' doesn't exist"), "none of that name, or it is private"),
        (DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."), "is restricted"),
        (errors.LocalTokenNotFoundError("Token is required"), "there is no token of the hub: log"),
        (answered(errors.HfHubHTTPError, 401), "does not accept the token, or asks for one"),
        (answered(errors.HfHubHTTPError, 403), "the token may not do that"),
        (answered(errors.HfHubHTTPError, 404), "nothing of that name"),
        (answered(errors.HfHubHTTPError, 429), "too many requests"),
        (answered(errors.HfHubHTTPError, 503), r"fault of its own \(status 503\): try again"),
        (errors.OfflineModeIsEnabled("Cannot reach x"), "cannot be reached: check the network"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "cannot be reached"),
        (httpx.ReadTimeout("timed out"), "cannot be reached"),
        (ConnectionError("Couldn't reach 'x' on the Hub"), "cannot be reached"),
        (RuntimeError("a\nb"), "^a b$"),
        (RuntimeError(""), "^RuntimeError$"),
    ],
)
def test_a_fault_is_explained_in_a_line(error, message):
    assert re.search(message, hub_fault(error))
    assert "\n" not in hub_fault(error)
    assert len(hub_fault(error)) <= 200


def test_what_a_library_wraps_is_explained():
    error = RuntimeError("it failed")
    error.__cause__ = httpx.ConnectError("no route")
    assert "check the network" in hub_fault(error)
    error.__cause__, error.__context__ = None, httpx.ConnectError("no route")
    assert "check the network" in hub_fault(error)


def test_causes_that_go_in_a_circle_end():
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert hub_fault(first) == "first"


@pytest.fixture
def printed(monkeypatch):
    """What huggingface_hub logs, as its own handler would print it."""
    lines, logger = [], logging.getLogger("huggingface_hub")
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_the_library_prints_no_line_for_each_attempt(printed, monkeypatch):
    log = logging.getLogger("huggingface_hub.utils._http").warning

    def fail():
        log("Retrying in 1s")
        raise ConnectionError

    with pytest.raises(ConnectionError), quiet_hub():
        fail()
    assert not printed
    log("after it")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "level", logging.DEBUG)
    with quiet_hub():
        log("asked for")
    assert printed == ["after it", "asked for"]
