"""What the page is told while a zoo grows, by whichever process on whichever machine."""

import socket
import time
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from threading import Lock

from vitarium.core.errors import CorruptFile, FileFault
from vitarium.core.printable import printable
from vitarium.page.answers.live import GrowthState, Live, TrainingCurve
from vitarium.zoo import growth_status
from vitarium.zoo._model_files import Epoch, read_epochs
from vitarium.zoo.growth_status import GrowthStatus
from vitarium.zoo.lock import is_held

SILENT_SECONDS = 75.0
"""Without a sign of life; a network's disk may show a file a minute late."""
_MAX_POINTS = 100
_CURVES = ("loss", "accuracy", "knn_accuracy")


class GrowthWatch:
    """Follows `growth.json` of a zoo; as cheap for a zoo of thousands of models as for one.

    Args:
        clock: seconds that only go forward.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        zoo: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._zoo, self._clock, self._wall_clock = zoo, clock, wall_clock
        self._lock = Lock()
        self._beat: float | None = None
        self._seen, self._age = clock(), 0.0
        """When that beat was first seen, and how old it was then."""
        self._curves: dict[str, tuple[str, TrainingCurve]] = {}

    def state(self) -> GrowthState:
        """Whether the zoo grows, or how the last growing ended."""
        return self._look()[0]

    def live(self) -> Live:
        """How far it is, with the curves of the models in training."""
        state, growth, quiet = self._look()
        elapsed = growth.beat - growth.started if growth else None
        if elapsed is not None and state == "growing":
            elapsed += quiet
        is_shown = growth is not None and state in ("growing", "silent")
        models = [each.model for each in growth.training] if growth and is_shown else []
        return {
            "state": state,
            "growth": growth,
            "elapsed": elapsed,
            "quiet": quiet,
            "curves": self._curves_of(models),
            "folder": printable(str(self._zoo.absolute())),
        }

    def _look(self) -> tuple[GrowthState, GrowthStatus | None, float]:
        """State, status, and for how many seconds the growing process has been silent."""
        try:
            growth = growth_status.read(self._zoo)
            if growth is None:
                return "none", None, 0.0
            if growth.state != "growing":
                return growth.state, growth, 0.0
            quiet = self._quiet(growth)
            if growth.host == printable(socket.gethostname()) and is_held(self._zoo) is False:
                # it may just have ended by itself: what it wrote before is read once more
                again = growth_status.read(self._zoo)
                if again is None or again.state == "growing":
                    return "interrupted", again or growth, quiet
                return again.state, again, 0.0
        except (CorruptFile, FileFault):
            return "unreadable", None, 0.0
        return ("silent" if quiet > SILENT_SECONDS else "growing"), growth, quiet

    def _quiet(self, growth: GrowthStatus) -> float:
        """By this machine's clock, as soon as a second beat was seen: others may go wrong."""
        with self._lock:
            now = self._clock()
            if growth.beat != self._beat:
                age = max(self._wall_clock() - growth.beat, 0.0)
                self._age = age if self._beat is None else 0.0
                self._beat, self._seen = growth.beat, now
            return now - self._seen + self._age

    def _curves_of(self, models: Sequence[str]) -> dict[str, TrainingCurve]:
        with self._lock:
            self._curves = {id: self._curves[id] for id in models if id in self._curves}
            for id in models:
                folder = self._zoo / "models" / id
                try:
                    about = (folder / "epochs.jsonl").stat()
                    stamp = f"{about.st_mtime_ns} {about.st_size}"
                    if self._curves.get(id, ("",))[0] != stamp:
                        self._curves[id] = (stamp, training_curve(read_epochs(folder)))
                except (OSError, FileFault, CorruptFile):
                    continue  # it has none yet, or is being replaced
            return {id: curve for id, (_, curve) in self._curves.items()}


def training_curve(epochs: Sequence[Epoch]) -> TrainingCurve:
    """Losses and accuracies by epoch, on splits and evaluation sets; of long trainings every k-th
    epoch, and the last."""
    step = -(-len(epochs) // _MAX_POINTS) or 1
    chosen = [*epochs[:-1][::step], *epochs[-1:]]
    metrics = {name for epoch in chosen for name in epoch.metrics}
    names = sorted(name for name in metrics if name.partition("_")[2] in _CURVES)
    values = {name: [_finite(epoch.metrics.get(name)) for epoch in chosen] for name in names}
    return {"epochs": [epoch.number for epoch in chosen], "metrics": values}


def _finite(value: float | None) -> float | None:
    return value if isinstance(value, int | float) and isfinite(value) else None
