"""What holds for every logger, and what each of the tools reads of it."""

import csv
import json
import math
import struct

import pytest

from vitarium.core.registry import choose, plugins
from vitarium.engine.loggers.base import Run
from vitarium.testing import check_logger

RUN = Run("0123456789ab", "pretrain", None, "tiny", {"optimizer.lr": 0.1, "epochs": 2})
LOSSES = {0: 2.5, 1: 1.5, 2: math.nan}


@pytest.fixture
def logged(tmp_path):
    """Three epochs by a logger, the last by another process than the first."""

    def write(name, **settings):
        for epochs in ((0, 1), (2,)):
            log = choose("logger", name, **settings)(RUN, tmp_path)
            for epoch in epochs:
                log.log(epoch, {"loss": LOSSES[epoch]} | ({"lr": 0.1} if epoch else {}))
            log.close("interrupted" if epoch < 2 else "finished")
        return tmp_path

    return write


def equal(losses):
    return [str(loss) for loss in losses] == [str(loss) for loss in LOSSES.values()]


@pytest.mark.parametrize("name", plugins("logger"))
def test_contract(name, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_logger(name)


def test_csv_has_a_row_per_epoch_with_all_metrics(logged):
    folder = logged("csv") / RUN.path
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert equal(float(row["loss"]) for row in rows)
    assert [row["lr"] for row in rows] == ["", "0.1", "0.1"]
    assert json.loads((folder / "hparams.json").read_text())["optimizer.lr"] == 0.1


def test_tensorboard_reads_one_run_with_its_factors(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(logged("tensorboard") / RUN.path)).Reload()
    scalars = events.Scalars("loss")
    assert [scalar.step for scalar in scalars] == [0, 1, 2]
    assert equal(scalar.value for scalar in scalars)
    summary = events.summary_metadata["_hparams_/session_start_info"]
    info = metadata.parse_session_start_info_plugin_data(summary.plugin_data.content)
    assert info.hparams["optimizer.lr"].number_value == 0.1
    assert info.hparams["stage"].string_value == "pretrain"


def test_an_epoch_that_was_cut_off_is_logged_again_and_read_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    log = choose("logger", "tensorboard")(RUN, tmp_path)
    log.log(0, {"loss": 1.0})
    log.close("interrupted")
    with SummaryWriter(tmp_path / RUN.path) as killed:
        killed.add_scalar("loss", 0.5, 1)
    resumed = choose("logger", "tensorboard")(RUN, tmp_path)
    assert resumed.last_epoch == 0
    resumed.log(1, {"loss": 0.5})
    resumed.close("finished")
    events = EventAccumulator(str(tmp_path / RUN.path)).Reload()
    assert [scalar.step for scalar in events.Scalars("loss")] == [0, 1]


def test_mlflow_reads_one_run_with_its_factors(logged, tmp_path, monkeypatch):
    """In the store of its variable; the contract is tested in the database that is the default."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := (tmp_path / "runs").as_uri())
    logged("mlflow", experiment="vits")
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vits").experiment_id])
    history = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda m: m.step)
    assert [metric.step for metric in history] == [0, 1, 2]
    assert equal(metric.value for metric in history)
    factors = {"optimizer.lr": "0.1", "epochs": "2"}
    assert run.data.params == {"stage": "pretrain", "parent": "", **factors}
    assert (run.info.status, run.data.tags["vitarium.model"]) == ("FINISHED", RUN.id)
    assert not (tmp_path / "mlflow.db").exists()


def records(file):
    """What a run of the tool's consists of: protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts = file.read_bytes(), 7, []
    while position + 7 <= len(content):
        left_in_block = 2**15 - position % 2**15
        if left_in_block < 7:
            position += left_in_block
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(b"".join(parts))
            parts = []


def test_what_a_killed_process_logged_by_wandb_is_logged_anew(tmp_path):
    """Its offline run may lack epochs: the tool writes with a delay."""
    killed = choose("logger", "wandb")(RUN, tmp_path)
    for epoch in range(2):
        killed.log(epoch, {"loss": 1.0})
    resumed = choose("logger", "wandb")(RUN, tmp_path)
    assert resumed.last_epoch == -1
    killed._opened.finish()  # only to stop its threads
    resumed.log(0, {"loss": 1.0})
    resumed.close("finished")
    assert len([*tmp_path.glob("wandb/offline-run-*")]) == 1
    assert choose("logger", "wandb")(RUN, tmp_path).last_epoch == 0


def test_wandb_writes_offline_runs_of_one_id(logged):
    """As `wandb sync` reads them, which joins runs of one id by their steps."""
    import wandb

    folder = logged("wandb", project="vits")
    wandb.teardown()  # as the process does when it ends: all is on the disk then
    rows, ids, configs = [], set(), []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(file):
            if record.HasField("run"):
                ids.add((record.run.project, record.run.run_id))
                configs.append({i.key: i.value_json for i in record.run.config.update})
            if record.HasField("history"):
                items = record.history.item
                rows.append({".".join(i.nested_key) or i.key: i.value_json for i in items})
    assert ids == {("vits", RUN.id)}
    assert [int(row["_step"]) for row in rows] == [0, 1, 2]
    assert equal(float(row["loss"]) for row in rows)
    assert any(config.get("optimizer.lr") == "0.1" for config in configs)
