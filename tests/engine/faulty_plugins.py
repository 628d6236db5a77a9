"""A plug-in of somebody else's, whose training goes wrong on purpose."""

import itertools
import os
import signal
from pathlib import Path
from typing import Literal

from vitarium.objectives.base import objective
from vitarium.objectives.classification.base import CLASSIFICATION
from vitarium.objectives.classification.supervised import Supervised, supervised


class Faulty(Supervised):
    """Goes wrong at the `at`-th batch of its process, and at all that follow, but at most `times`.

    `tally` is a file that counts.
    """

    fault: Literal["killed", "raises", "memory"] = "killed"
    at: int = 1
    times: int = 1
    tally: str


batches = itertools.count(1)


@objective("faulty", **CLASSIFICATION)
def faulty(config: Faulty, model, batch):
    """Supervised training that goes wrong, but where it is only tried without memory."""
    if batch.images.is_meta:
        return supervised(config, model, batch)
    tally = Path(config.tally)
    so_far = len(tally.read_text()) if tally.exists() else 0
    if next(batches) >= config.at and so_far < config.times:
        tally.write_text("x" * (so_far + 1))
        if config.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if config.fault == "memory":
            raise MemoryError("no memory on purpose")
        raise RuntimeError("a fault on purpose")
    return supervised(config, model, batch)
