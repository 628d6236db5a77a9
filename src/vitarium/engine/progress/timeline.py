"""When each worker did what: a file for chrome://tracing, Perfetto and the like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.engine.events import Event, Retried, Spent


class Timeline:
    """A listener that writes Chrome's trace event format; a row per worker, one for its writing.

    Args:
        labels: what to call each model.
    """

    def __init__(self, path: Path, labels: Mapping[str, str]) -> None:
        self.path, self.labels = path, labels
        self._events: list[dict[str, Any]] = []
        self._rows: dict[tuple[str, bool], int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Spent():
                row = self._row(event.worker, event.what == "write")
                self._events.append(
                    {
                        "name": f"{event.what} {self.labels.get(event.model, event.model)}",
                        "cat": event.what,
                        "ph": "X",
                        "ts": event.start * 1e6,
                        "dur": (event.end - event.start) * 1e6,
                        "pid": 0,
                        "tid": row,
                        "args": {"model": event.model, "epoch": event.epoch},
                    }
                )
            case Retried():
                self._note(f"retried {self.labels.get(event.model, event.model)}: {event.cause}")

    def write(self) -> None:
        """Write the events so far into the file."""
        files.write_json(self.path, {"traceEvents": self._events, "displayTimeUnit": "ms"})

    def _row(self, worker: str, writing: bool) -> int:
        key = (worker, writing)
        if key not in self._rows:
            row = self._rows[key] = len(self._rows) + 1
            name = f"{worker}, writing" if writing else worker
            self._events.append(
                {"name": "thread_name", "ph": "M", "pid": 0, "tid": row, "args": {"name": name}}
            )
        return self._rows[key]

    def _note(self, text: str) -> None:
        last = max((e["ts"] + e.get("dur", 0) for e in self._events if "ts" in e), default=0.0)
        note = {"name": text, "ph": "i", "ts": last, "pid": 0, "tid": 0, "s": "g"}
        self._events.append(note)
