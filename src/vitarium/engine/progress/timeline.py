"""When each worker did what: a file for chrome://tracing, Perfetto and the like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.engine.events import Event, Retried, Spent


class Timeline:
    """A listener that writes Chrome's trace event format; a row per worker, one for its writing."""

    def __init__(self, path: Path, labels: Mapping[str, str]) -> None:
        self.path, self.labels = path, labels
        self._events: list[dict[str, Any]] = []
        self._rows: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Spent():
                row = f"{event.worker}, writing" if event.what == "write" else event.worker
                if row not in self._rows:
                    self._rows[row] = len(self._rows) + 1
                    self._add(name="thread_name", ph="M", tid=self._rows[row], args={"name": row})
                self._add(
                    name=f"{event.what} {self.labels.get(event.model, event.model)}",
                    cat=event.what,
                    ph="X",
                    ts=event.start * 1e6,
                    dur=(event.end - event.start) * 1e6,
                    tid=self._rows[row],
                    args={"model": event.model, "epoch": event.epoch},
                )
            case Retried():
                text = f"retried {self.labels.get(event.model, event.model)}: {event.cause}"
                ends = [e["ts"] + e.get("dur", 0) for e in self._events if "ts" in e]
                self._add(name=text, ph="i", ts=max(ends, default=0.0), tid=0, s="g")

    def write(self) -> None:
        files.write_json(self.path, {"traceEvents": self._events, "displayTimeUnit": "ms"})

    def _add(self, **event: Any) -> None:
        self._events.append({"pid": 0, **event})
