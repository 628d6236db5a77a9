"""Limits of time and memory, so that every query comes to an end.

DuckDB runs on a thread of its own while the caller waits: so the caller hears the clock and Ctrl-C,
and interrupts it. One call of a function on a very large value does not let itself be interrupted;
its thread is left behind, and ends with the process.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from vitarium.core.errors import InvalidInput, QueryTimeout, QueryTooLarge
from vitarium.core.parameters import parameter

if TYPE_CHECKING:
    import duckdb

Answer = TypeVar("Answer")
Batch = TypeVar("Batch")

TIMEOUT = 30.0
"""Seconds that a query may take unless more are allowed."""
MEMORY = "50%"
"""What DuckDB may take of the machine's memory, or of what a container or batch system allots."""
FRAME_SHARE, ROWS_SHARE = 1 / 2, 1 / 8
"""Shares of that for an answer in Python. Rows take several times as much when they are printed."""
NESTED_BYTES = 64_000_000
"""Lists in one piece of an answer, as DuckDB holds them."""

_PATIENCE = 1.0  # seconds in which DuckDB has to let itself be interrupted
_UNITS = {"bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4, "PiB": 5}
_CONTAINERS = {list, tuple, dict}
_left_behind: list[Future[Any]] = []


def is_any_left_behind() -> bool:
    """Whether a query goes on that did not let itself be interrupted."""
    return not all(work.done() for work in _left_behind)


class TimeLimit:
    """The seconds that a query may take (0 or None: any), which only run while DuckDB works.

    Raises InvalidInput for what is no time.
    """

    def __init__(self, database: "duckdb.DuckDBPyConnection", seconds: float | None) -> None:
        if seconds is not None and (math.isnan(seconds) or seconds < 0):
            raise InvalidInput(f"a timeout of {seconds}: write seconds, or 0 for no limit")
        self._database, self._seconds = database, seconds or math.inf
        self._left = self._seconds

    def run(self, work: Callable[[], Answer]) -> Answer:
        """What `work` gives, which asks the database. Raises QueryTimeout and KeyboardInterrupt."""
        # not the thread's own state: a Ctrl-C while it is joined makes it look ended
        future: Future[Answer] = Future()

        def attempt() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        started, is_late = time.monotonic(), True
        try:
            threading.Thread(target=attempt, name="query", daemon=True).start()
            is_late = not wait([future], min(max(self._left, 0.0), threading.TIMEOUT_MAX)).done
        finally:
            if is_late:  # or stopped by Ctrl-C
                end = time.monotonic() + _PATIENCE
                # again and again: what comes between two statements is not heard
                while time.monotonic() < end and not wait([future], 0.02).done:
                    self._database.interrupt()
                _left_behind.append(future)
        self._left -= time.monotonic() - started
        if is_late:
            raise QueryTimeout(self._seconds)
        return future.result()


def memory_limit(database: "duckdb.DuckDBPyConnection") -> int:
    """Bytes that DuckDB may take."""
    rows = database.execute("SELECT current_setting('memory_limit')").fetchall()
    number, unit = rows[0][0].split()
    return int(float(number) * 1024 ** _UNITS[unit])


def capped(
    batches: Iterable[Batch], nbytes: Callable[[Batch], int], max_bytes: float
) -> Iterator[Batch]:
    """The batches, as long as all of them take no more bytes. Raises QueryTooLarge."""
    total = 0
    for batch in batches:
        total += nbytes(batch)
        if total > max_bytes:
            raise QueryTooLarge(
                f"the answer takes more than {max_bytes / 1e6:,.0f} MB of memory; ask for less "
                "of it (LIMIT, fewer columns, an aggregate), or have `vitarium query` write it to "
                f"a file piece by piece: {parameter('output', 'FILE.csv')}"
            )
        yield batch


def nbytes_of(rows: Sequence[tuple[Any, ...]]) -> int:
    """Bytes of rows as DuckDB gives them in Python, with all that is in them."""
    if not _CONTAINERS.isdisjoint(map(type, chain.from_iterable(rows))):
        return sum(map(_nbytes_with_content, rows))
    # a tenth of the time that the other way takes
    return sum(map(sys.getsizeof, chain(rows, chain.from_iterable(rows))))


def _nbytes_with_content(value: Any) -> int:
    size = sys.getsizeof(value)
    if isinstance(value, list | tuple):
        size += sum(map(_nbytes_with_content, value))
    elif isinstance(value, dict):
        size += sum(map(_nbytes_with_content, chain(value.keys(), value.values())))
    return size
