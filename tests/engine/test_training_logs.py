"""Logs of training: every epoch once, whatever becomes of it, and no harm where a logger fails."""

import csv
import threading

import pytest

from vitarium import Blueprint, Zoo, grow, plan
from vitarium.core import extras, registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput, LeadsOutside
from vitarium.core.extras import MissingExtra
from vitarium.engine import training_logs
from vitarium.engine.events import Ended, EpochEnded, Notice, Retried, Started
from vitarium.engine.loggers.base import LoggerConfig, RunLog, logger
from vitarium.engine.training_logs import TrainingLogs, chosen_loggers

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}


def grown(values, path, **options):
    return grow(Blueprint.read(values), path, **{**PLAIN, **options})


@pytest.fixture
def first(tiny):
    """The stage that starts from scratch: two models of two epochs."""
    del tiny["stages"]["finetune"]
    return tiny


@pytest.fixture
def lists(monkeypatch):
    """A logger that keeps what is logged, by model, and raises where it is asked to."""
    calls = {}
    loaded = registry.plugins("logger")
    monkeypatch.setitem(registry._plugins, "logger", dict(loaded))

    class Listed(RunLog):
        def __init__(self, config, run):
            self.config = config
            self.calls = calls.setdefault(run.id, [])
            self.last_epoch = max((e for e in self.calls if isinstance(e, int)), default=-1)

        def log(self, epoch, metrics):
            calls.get("wait", lambda: None)()
            if epoch == self.config.fails_at:
                raise ConnectionError("no route to\nhost")
            self.calls.append(epoch)

        def close(self, status):
            self.calls.append(status)

    class Lists(LoggerConfig):
        fails_at: int = -1
        """Epoch at which it raises."""

    @logger("lists", title="Lists")
    def listed(config: Lists, run, folder):
        """Keeps what is logged in lists."""
        return Listed(config, run)

    return calls


def test_every_epoch_of_every_model_is_logged(tiny, tmp_path, lists):
    growth = grown(tiny, tmp_path / "zoo", logs=["lists", "csv"])
    epochs = {model.id: model.recipe.epochs for model in growth.plan.models}
    assert lists == {id: [*range(last + 1), "finished"] for id, last in epochs.items()}
    folder = tmp_path / "zoo" / "logs" / "csv"
    for model in growth.plan.models:
        with (folder / model.stage / model.id / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, epoch in zip(rows, growth.zoo.folder(model.id).epochs(), strict=True):
            numbers = {name: float(cell) for name, cell in row.items() if cell}
            assert numbers == {"epoch": epoch.number, **epoch.metrics}


@pytest.mark.slow
def test_epochs_of_worker_processes_are_logged(first, tmp_path, lists):
    grown(first, tmp_path / "zoo", workers=1, logs=["lists"])
    assert list(lists.values()) == [[0, 1, 2, "finished"]] * 2


@pytest.mark.parametrize(("logs", "interrupted_at"), [([], 1), (["lists"], 1), (["lists"], 2)])
def test_a_resumed_run_goes_on_without_a_gap_or_an_epoch_twice(
    first, tmp_path, lists, logs, interrupted_at
):
    """Interrupted when an epoch is on disk, of which no logger has heard yet."""

    def interrupt(event):
        if isinstance(event, EpochEnded) and event.epoch == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grown(first, tmp_path / "zoo", logs=logs, listener=interrupt)
    calls = [*range(interrupted_at), "interrupted"]
    assert list(lists.values()) == ([calls] if logs else [])
    grown(first, tmp_path / "zoo", logs=["lists"])
    logged = [[e for e in calls if e != "interrupted"] for calls in lists.values()]
    assert logged == [[0, 1, 2, "finished"]] * 2


def test_models_that_were_grown_without_a_log_are_logged_afterwards_and_once(
    first, tmp_path, lists
):
    grown(first, tmp_path / "zoo")
    for _ in range(2):
        grown(first, tmp_path / "zoo", logs=["lists"])
        assert list(lists.values()) == [[0, 1, 2, "finished"]] * 2


def test_a_diverged_model_is_logged_as_one(first, tmp_path, lists):
    first["stages"]["pretrain"] |= {"optimizer": {"name": "sgd", "lr": 1e30}, "grid": {"seed": [1]}}
    grown(first, tmp_path / "zoo", logs=["lists"])
    (calls,) = lists.values()
    assert calls == [0, "diverged"]


def test_a_logger_that_fails_is_reported_once_and_stops_nothing(first, tmp_path, lists):
    events = []
    logs = [{"name": "lists", "fails_at": 1}, "csv"]
    growth = grown(first, tmp_path / "zoo", logs=logs, listener=events.append)
    assert len(growth.grown) == 2
    (notice,) = (e.text for e in events if isinstance(e, Notice) and "lists" in e.text)
    assert notice == (
        "the logger 'lists' failed and is left out from here on, while training goes on: "
        "ConnectionError: no route to host"
    )
    assert list(lists.values()) == [[0, "interrupted"]]
    assert len([*(tmp_path / "zoo" / "logs" / "csv").glob("pretrain/*/metrics.csv")]) == 2


def test_after_a_failure_the_next_growing_logs_what_is_missing(first, tmp_path, lists):
    grown(first, tmp_path / "zoo", logs=[{"name": "lists", "fails_at": 1}])
    grown(first, tmp_path / "zoo", logs=["lists"])
    logged = [[e for e in calls if e != "interrupted"] for calls in lists.values()]
    assert logged == [[0, 1, 2, "finished"]] * 2


def test_what_a_worker_did_that_died_is_logged_when_its_model_goes_on(first, tmp_path, lists):
    """It came to the disk, and the message that says so never came."""
    zoo = grown(first, tmp_path / "zoo").zoo
    planned, id = plan(first), zoo.ids()[0]
    lists[id] = [0]
    with TrainingLogs(chosen_loggers(["lists"]), planned, zoo, [], print) as logs:
        for event in (Started(id), Retried(id, "died"), Started(id), Ended(id, "finished")):
            logs(event)
    assert lists[id] == [0, 1, 2, "finished"]


def test_a_slow_logger_holds_nothing_up_and_is_waited_for(first, tmp_path, lists, monkeypatch):
    monkeypatch.setattr(training_logs, "_PATIENCE_SECONDS", 0.0)
    grown_already = threading.Event()
    texts = []

    def hear(event):
        if isinstance(event, Notice):
            texts.append(event.text)
            grown_already.set()  # the notice that it is waited for

    lists["wait"] = grown_already.wait
    growth = grown(first, tmp_path / "zoo", logs=["lists"], listener=hear)
    del lists["wait"]
    assert len(growth.grown) == 2
    assert any("the logger 'lists' is still writing" in text for text in texts)
    assert list(lists.values()) == [[0, 1, 2, "finished"]] * 2


def test_a_missing_library_is_refused_before_anything_is_written(first, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    message = r"^the logger 'tensorboard' needs tensorboard: pip install 'vitarium\[tensorboard\]'$"
    with pytest.raises(MissingExtra, match=message):
        grown(first, tmp_path / "zoo", logs=["tensorboard"])
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        (["tensorbord"], "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        ([{"name": "csv", "foldr": "x"}], "unknown factor 'foldr'; did you mean 'folder'?"),
        (["csv", {"name": "csv", "folder": "x"}], "the logger 'csv' is named twice"),
        ("csv", r"'csv' is no list of loggers; write logs=['csv']"),
        ([3], "3 is neither a name nor a mapping with a name"),
    ],
)
def test_a_wrong_logger_is_refused_before_anything_is_written(first, tmp_path, logs, message):
    with pytest.raises(InvalidInput) as refused:
        grown(first, tmp_path / "zoo", logs=logs)
    assert message in str(refused.value)
    assert not (tmp_path / "zoo").exists()


def test_a_folder_of_its_own_may_be_anywhere(first, tmp_path):
    grown(first, tmp_path / "zoo", logs=[{"name": "csv", "folder": str(tmp_path / "mine")}])
    assert len([*(tmp_path / "mine").glob("pretrain/*/metrics.csv")]) == 2
    assert not (tmp_path / "zoo" / "logs").exists()


def test_a_link_in_the_zoo_leads_no_logger_out_of_it(first, tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    (tmp_path / "elsewhere").mkdir()
    (zoo.path / "logs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LeadsOutside):
        grown(first, zoo.path, logs=["csv"])
    assert not any((tmp_path / "elsewhere").iterdir())


def test_problems_of_settings_name_their_logger():
    with pytest.raises(InvalidConfig, match="the logger 'wandb':\n  mode: 'on' is not"):
        chosen_loggers([{"name": "wandb", "mode": "on"}])
