"""A plug-in of somebody else's, whose training goes wrong on purpose."""

import os
import signal
from pathlib import Path
from typing import Literal

from vitarium.objectives.classification import CLASSIFICATION
from vitarium.objectives.supervised import Supervised, supervised
from vitarium.registry import objective


class Faulty(Supervised):
    """Goes wrong at the first batch, as often as `times`; `tally` is a file that counts."""

    fault: Literal["killed", "raises"] = "killed"
    times: int = 1
    tally: str


@objective("faulty", config=Faulty, **CLASSIFICATION)
def faulty(config, model, batch):
    """Supervised training that goes wrong."""
    tally = Path(config.tally)
    so_far = len(tally.read_text()) if tally.exists() else 0
    if so_far < config.times:
        tally.write_text("x" * (so_far + 1))
        if config.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a fault on purpose")
    return supervised(config, model, batch)
