"""Text files for spreadsheets and scripts: metrics as CSV, factors as JSON."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vitarium.core import files
from vitarium.core.csv_cells import guarded, unguarded
from vitarium.engine.loggers.base import LoggerConfig, Run, RunLog, logger


class _CsvFile(RunLog):
    """`metrics.csv`, a row per epoch, and `hparams.json`, written whole: never with half a row."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._rows: list[dict[str, str]] = []
        self._file = folder / "metrics.csv"
        if files.exists(self._file):
            text = io.StringIO(files.read(self._file).decode(), newline="")
            self._rows = [{unguarded(k): v for k, v in row.items()} for row in csv.DictReader(text)]
            self.last_epoch = max((int(row["epoch"]) for row in self._rows), default=-1)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if self.last_epoch < 0 and not self._rows:
            files.write_json(self._folder / "hparams.json", self._run.hyperparameters)
        self._rows.append({"epoch": str(epoch)} | {n: repr(float(x)) for n, x in metrics.items()})
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(map(guarded, columns))
        writer.writerows([row.get(name, "") for name in columns] for row in self._rows)
        files.write(self._file, files.utf8(text.getvalue()))


@logger("csv", title="CSV")
def csv_files(config: LoggerConfig, run: Run, folder: Path) -> RunLog:
    """A folder per model with metrics.csv, a row per epoch, and its factors in hparams.json."""
    return _CsvFile(run, folder / run.path)
