"""Runs of MLflow, one per model, in a database beside the models or on a tracking server."""

import logging
import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.engine.loggers.base import LoggerConfig, Run, RunLog, RunStatus, logger

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

_STATUS: Mapping[RunStatus, str] = {
    "finished": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_MODEL = "vitarium.model"
_DATABASE = "mlflow.db"


class Mlflow(LoggerConfig):
    """Where runs go."""

    tracking_uri: str = ""
    """Database or server, e.g. `http://localhost:5000`; "": $MLFLOW_TRACKING_URI, or else the
    SQLite database mlflow.db in the log's folder."""
    experiment: str = ""
    """Experiment of the runs; "": the blueprint's name."""


class _MlflowRun(RunLog):
    """Finds the model's run by a tag; its metric `epoch` tells how far it is."""

    def __init__(self, config: Mlflow, run: Run, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._name = config.experiment or run.blueprint
        self._uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        self._is_running = False
        self._run_id = ""
        if self._uri or (folder / _DATABASE).exists():
            self._find()

    def _find(self) -> None:
        client = self._client()
        experiment = client.get_experiment_by_name(self._name)
        if experiment is None:
            return
        having_id = f"tags.`{_MODEL}` = '{self._run.id}'"
        if runs := client.search_runs([experiment.experiment_id], having_id, max_results=1):
            self._run_id = runs[0].info.run_id
            steps = (m.step for m in client.get_metric_history(self._run_id, "epoch"))
            self.last_epoch = max(steps, default=-1)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        client = self._client()
        if not self._is_running:
            if self._run_id:
                client.update_run(self._run_id, status="RUNNING")
            else:
                self._create(client)
            self._is_running = True
        client.log_batch(self._run_id, metrics=_metrics({**metrics, "epoch": epoch}, epoch))

    def close(self, status: RunStatus) -> None:
        if self._is_running:
            self._client().set_tag(self._run_id, "vitarium.status", status)
            self._client().set_terminated(self._run_id, _STATUS[status])

    def _create(self, client: "MlflowClient") -> None:
        from mlflow.entities import Param

        experiment = client.get_experiment_by_name(self._name)
        artifacts_uri = None if self._uri else (self._folder / "artifacts").absolute().as_uri()
        number = experiment.experiment_id if experiment else ""
        number = number or client.create_experiment(self._name, artifact_location=artifacts_uri)
        run = self._run
        tags = {_MODEL: run.id, "vitarium.stage": run.stage}
        name = f"{run.stage} {run.id[:8]}"
        self._run_id = client.create_run(number, tags=tags, run_name=name).info.run_id
        params = [Param(name, str(value)) for name, value in run.hyperparameters.items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at a time
            client.log_batch(self._run_id, params=params[start : start + 100])

    def _client(self) -> "MlflowClient":
        self._folder.mkdir(parents=True, exist_ok=True)
        return _client(self._uri or f"sqlite:///{(self._folder / _DATABASE).absolute()}")


def _metrics(values: Mapping[str, float], step: int) -> "list[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in values.items()]


@cache
def _client(uri: str) -> "MlflowClient":
    # it would report to its makers that it is used, of which nobody here was asked
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store").setLevel(logging.WARNING)  # it narrates its migrations
    return MlflowClient(tracking_uri=uri)


@logger("mlflow", title="MLflow", extra="mlflow")
def mlflow_runs(config: Mlflow, run: Run, folder: Path) -> RunLog:
    """Runs of MLflow, tagged with their models' ids, with factors as parameters."""
    return _MlflowRun(config, run, folder)
