"""The contract of loggers."""

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vitarium.core.extras import require
from vitarium.engine.loggers.base import Run, RunLog
from vitarium.testing._rules import Contract

_FACTORS: Mapping[str, Any] = {
    "optimizer": "adamw",
    "optimizer.lr": 0.1,
    "optimizer.betas": [0.9, 0.999],
    "clip_grad_norm": None,
    "head.bias": True,
}
_FIRST, _SECOND = (
    Run(id, "../fine / tüne", None, "contract", _FACTORS) for id in ("0123456789ab", "ba9876543210")
)


def check_logger(name: str, **settings: Any) -> None:
    """Test that a logger keeps to its contract (`engine/loggers/base.py`), in a temporary folder.

    Two models are logged at a time, by one process after another, and the last epoch of each is
    known again. What takes a server is tested with settings that take none.
    """
    rule = Contract("logger", name, settings)
    if extra := rule.facts["extra"]:
        require(extra, f"the logger '{name}'")
    with TemporaryDirectory(prefix="vitarium-") as parent:
        folder = Path(parent) / "logs"
        first, second = (_opened(rule, run, folder) for run in (_FIRST, _SECOND))
        rule(not folder.exists(), "it writes before anything is logged")
        rule(first.last_epoch == second.last_epoch == -1, "a new log has a last epoch")
        first.log(0, {"val_loss": 2.5})
        second.log(0, {"val_loss": math.inf})
        first.log(1, {"val_loss": 1.5, "train_loss": math.nan})
        first.close("interrupted")
        again = _opened(rule, _FIRST, folder)
        rule(again.last_epoch == 1, f"after epoch 1 it says that {again.last_epoch} was the last")
        again.log(2, {"val_loss": 0.5, "val_knn_accuracy": 0.25})
        again.close("finished")
        second.close("diverged")
        ends = [_opened(rule, run, folder).last_epoch for run in (_FIRST, _SECOND)]
        rule(ends == [2, 0], f"two logs of epochs to 2 and 0 are found again with {ends}")


def _opened(rule: Contract, run: Run, folder: Path) -> RunLog:
    log = rule.section(run, folder)
    rule(isinstance(log, RunLog), f"it gives {type(log).__name__}, which is no RunLog")
    assert isinstance(log, RunLog)
    return log
