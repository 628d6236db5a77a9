"""Event files for TensorBoard: curves of all models, and their factors in its HParams tab."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.engine.loggers.base import LoggerConfig, Run, RunLog, RunStatus, logger


class _EventFiles(RunLog):
    def __init__(self, run: Run, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._writer: Any = None
        self.last_epoch = _last_step(folder) if folder.is_dir() else -1

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        writer = self._open(epoch)
        for name, value in metrics.items():
            writer.add_scalar(name, value, epoch)
        writer.add_scalar("epoch", epoch, epoch)  # last: with it the epoch is complete
        writer.flush()

    def close(self, status: RunStatus) -> None:
        if self._writer:
            self._writer.close()

    def _open(self, epoch: int) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            # what was cut off inside of this epoch is dropped by TensorBoard
            self._writer = SummaryWriter(str(self._folder), purge_step=epoch)
            if epoch == 0:
                values = {n: _plain(value) for n, value in self._run.hyperparameters.items()}
                _, session_start, _ = hparams(values, {})
                self._writer.file_writer.add_summary(session_start)
        return self._writer


def _last_step(folder: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    if "epoch" not in events.Tags()["scalars"]:
        return -1
    return max(scalar.step for scalar in events.Scalars("epoch"))


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


@logger("tensorboard", title="TensorBoard", extra="tensorboard")
def tensorboard(config: LoggerConfig, run: Run, folder: Path) -> RunLog:
    """Event files, a folder per model; `tensorboard --logdir` of the log's folder shows them."""
    return _EventFiles(run, folder / run.path)
