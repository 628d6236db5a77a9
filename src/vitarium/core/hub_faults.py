"""What went wrong on the way to the Hugging Face hub, in a line that says what to do."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vitarium.core.printable import printable, shortened

_MAX_LENGTH = 200
_LOGIN = "log in with `hf auth login`, or set the variable HF_TOKEN"
_NO_HUB = "the hub cannot be reached: check the network, and the variable HF_HUB_OFFLINE"
_BY_STATUS = {
    401: f"the hub does not accept the token, or asks for one: {_LOGIN}",
    403: f"the token may not do that: {_LOGIN} to a token with the right to write there",
    404: "there is nothing of that name: check its spelling, and the rights of your token",
    429: "too many requests: try again in some minutes",
}


def hub_fault(error: BaseException) -> str:
    """Of an exception of huggingface_hub, of datasets, or of what they use; one line."""
    for cause in _causes(error):
        if (text := _explained(cause)) is not None:
            return text
    first = printable(str(error)).strip() or type(error).__name__
    return shortened(first, _MAX_LENGTH)


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Inside, huggingface_hub does not print a line for every attempt to reach the hub: what went
    wrong is in its exception. Where HF_HUB_VERBOSITY asks for more than warnings, it does."""
    with suppress(ImportError):
        import huggingface_hub.utils  # noqa: F401 - sets the level once, when it is imported
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    if before == logging.WARNING:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, and those which it was raised from or while handling, once."""
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _explained(error: BaseException) -> str | None:
    """By names of classes: which libraries raise them depends on versions."""
    names = {base.__name__ for base in type(error).__mro__}
    gated = "GatedRepoError" in names or "gated dataset" in str(error)
    if gated:
        return f"access to it is restricted: ask for it on its page of the hub, then {_LOGIN}"
    if "LocalTokenNotFoundError" in names:
        return f"there is no token of the hub: {_LOGIN}"
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError", "NotFoundError"}:
        return f"there is none of that name, or it is private: check its spelling, or {_LOGIN}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if isinstance(status, int) and status >= 500:
        return f"the hub has a fault of its own (status {status}): try again later"
    unreachable = {"OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TimeoutException"}
    if names & (unreachable | {"Timeout", "LocalEntryNotFoundError", "TimeoutError"}):
        return _NO_HUB
    return None
