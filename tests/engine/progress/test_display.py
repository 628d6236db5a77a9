"""Progress: bars where there is a terminal, plain lines where there is none."""

import io
import threading

import pytest

from vitarium import Blueprint, plan
from vitarium.core import heartbeat
from vitarium.core.terminal import Terminal
from vitarium.engine.events import Ended, EpochEnded, Halved, Retried, Started, Stepped
from vitarium.engine.progress import display as module


@pytest.fixture
def planned(tiny):
    return plan(Blueprint.read(tiny))


def show(planned, monkeypatch, terminal: bool, existing=()) -> str:
    """What is written while one model is retried and finished, one fails, and one is skipped."""
    written = io.StringIO()
    console = Terminal(file=written, force_terminal=terminal, width=160, color_system=None)
    monkeypatch.setattr(module, "Terminal", lambda stderr: console)
    first, second = planned.of_stage("pretrain")
    child = planned.of_stage("finetune")[0]
    events = [
        Started(first.id),
        Stepped(first.id, 1, 2, 4),
        Retried(first.id, "its process was killed by SIGKILL"),
        Halved(1, "MemoryError: no memory"),
        Started(first.id),
        EpochEnded(first.id, 1, {"val_accuracy": 0.5, "train_loss": 1.25}),
        EpochEnded(first.id, 2, {"val_accuracy": 0.75, "train_loss": 1.0}),
        Ended(first.id, "finished"),
        Started(second.id),
        Ended(second.id, "failed", "no [such] data"),
        Ended(child.id, "skipped", "its parent has no weights"),
    ]
    with module.display(planned, existing) as tell:
        for event in events:
            tell(event)
            if terminal:
                console.file.write("\n--\n")
    return written.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_every_end_is_told_with_its_cause(planned, monkeypatch, terminal):
    message = show(planned, monkeypatch, terminal)
    for part in (
        "killed by SIGKILL; retrying",
        "out of memory; now 1 model at a time",
        "failed: no [such] data",
        "skipped: its parent has no weights",
    ):
        assert part in message


def test_without_a_terminal_a_line_tells_the_scores(planned, monkeypatch):
    lines = show(planned, monkeypatch, False).splitlines()
    assert len(lines) == 7
    assert lines[0] == f"growing {planned.name}: 6 models"
    assert lines[3].startswith("[1/6] pretrain")
    assert lines[3].endswith("finished: validation accuracy 0.750, training loss 1.000")
    assert lines[-1].startswith("3 of 6 models after ")


def test_an_accuracy_by_nearest_neighbors_is_called_so(planned, monkeypatch):
    console = Terminal(file=io.StringIO(), width=160, color_system=None)
    monkeypatch.setattr(module, "Terminal", lambda stderr: console)
    id = planned.models[0].id
    with module.display(planned, ()) as listener:
        listener(Started(id))
        listener(EpochEnded(id, 1, {"val_knn_accuracy": 0.5, "test_knn_accuracy": 0.25}))
        listener(Ended(id, "finished"))
    line = next(line for line in console.file.getvalue().splitlines() if line.startswith("[1/6]"))
    assert line.endswith("finished: validation k-NN accuracy 0.500")


@pytest.mark.parametrize(("epoch", "prefix"), [(0, "before training: "), (1, "")])
def test_scores_before_training_are_called_so(planned, monkeypatch, epoch, prefix):
    console = Terminal(file=io.StringIO(), width=160, color_system=None, force_terminal=True)
    monkeypatch.setattr(module, "Terminal", lambda stderr: console)
    id = planned.models[0].id
    with module.display(planned, ()) as listener:
        listener(Started(id))
        listener(EpochEnded(id, epoch, {"val_accuracy": 0.125}))
        bars = listener.progress.tasks
    assert [bar.fields["note"] for bar in bars][1] == f"{prefix}val accuracy 0.125"


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(planned, monkeypatch):
    written, beats = io.StringIO(), threading.Event()
    console = Terminal(file=written, width=160, color_system=None)
    monkeypatch.setattr(module, "Terminal", lambda stderr: console)
    monkeypatch.setattr(heartbeat, "FIRST", 0.0)
    monkeypatch.setattr(heartbeat, "INTERVAL", 1e6)
    monkeypatch.setattr(module._Lines, "beat", signaled(module._Lines.beat, beats))
    id = planned.models[0].id
    with module.display(planned, (), lambda: 300.0) as listener:
        listener(EpochEnded(id, 1, {}))
        assert beats.wait(60)
    lines = written.getvalue().splitlines()
    assert lines[1].startswith("0 of 6 models, ")
    assert lines[1].endswith("; about 5 min left")


def signaled(function, event):
    def call(*arguments):
        function(*arguments)
        event.set()

    return call


def test_children_of_several_parents_are_labeled_with_theirs(planned):
    labels = module.labels(planned)
    children = planned.of_stage("finetune")
    assert len({label.partition(" of ")[2] for label in labels.values()}) > 2
    for child in children:
        assert f" of {child.parent[:8]} " in labels[child.id]
    assert all(" of " not in labels[model.id] for model in planned.of_stage("pretrain"))


def test_labels_name_the_factors_of_values_that_are_no_names(tiny):
    values = {"objective.class_weights": [None, [1, 2.5]], "optimizer.lr": [0.01]}
    del tiny["stages"]["finetune"]
    tiny["stages"]["pretrain"]["grid"] = values
    planned = plan(Blueprint.read(tiny))
    texts = [module.labels(planned)[model.id] for model in planned.of_stage("pretrain")]
    assert [text.split(" ", 2)[2] for text in texts] == [
        "class_weights=none",
        "class_weights=[1.0,2.5]",
    ]


def test_bars_count_models_and_epochs(planned, monkeypatch):
    message = show(planned, monkeypatch, True)
    assert "3 of 6 models" in message
    assert "5/8" in message  # epochs of the three models that are done with: 2 + 2 + 1


def test_what_was_there_already_counts(planned, monkeypatch):
    existing = [planned.of_stage("finetune")[1].id]
    assert "6 models, 1 of them are there already" in show(planned, monkeypatch, False, existing)
    assert "4 of 6 models" in show(planned, monkeypatch, True, existing)


def test_progress_can_be_switched_off(planned, capsys):
    with module.display(planned, (), enabled=False) as tell:
        tell(Ended(planned.models[0].id, "finished"))
    assert capsys.readouterr().err == ""


def test_counts_and_scores_fit_80_columns(tiny, monkeypatch):
    longer = plan(Blueprint.read({**tiny, "name": "vit-s-imagenet-cifar100-as-released"}))
    console = Terminal(file=io.StringIO(), width=80, color_system=None, force_terminal=True)
    monkeypatch.setattr(module, "Terminal", lambda stderr: console)
    child = longer.of_stage("finetune")[0]
    with module.display(longer, (), lambda: 700) as listener:
        listener(Started(child.id))
        listener(EpochEnded(child.id, 1, {"val_accuracy": 0.125, "train_loss": 2.25}))
        listener.progress.refresh()
        overall, running = console.file.getvalue().splitlines()[-2:]
    assert "1/8 epochs 0:00:00 0 of 6 models; about 12 min left" in overall
    assert f"finetune {child.id[:8]}" in running
    assert "1/1 val accuracy 0.125, train loss 2.250" in running
