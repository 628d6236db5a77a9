"""What stands in growth.json, added up from events by hand."""

import pytest

from vitarium import Blueprint, plan
from vitarium.engine.events import (
    Ended,
    EpochEnded,
    Halved,
    Notice,
    Retried,
    Spent,
    Started,
    Stepped,
)
from vitarium.engine.progress.display import labels
from vitarium.engine.progress.tracker import Tracker
from vitarium.zoo.growth_status import MAX_LISTED


@pytest.fixture
def planned(tiny):
    return plan(Blueprint.read(tiny))  # 2 models of 2 epochs, 4 of 1


@pytest.fixture
def tracker(planned):
    return Tracker(planned, [], {}, labels(planned), workers=2, now=100.0)


def status_of(tracker, now):
    return tracker.status(now, host="here", pid=1)


def stages(tracker, now=100.0):
    return {stage.name: stage for stage in status_of(tracker, now).stages}


def test_a_stage_counts_its_models_and_epochs(tracker, planned):
    first, second = planned.of_stage("pretrain")
    tracker.add(Started(first.id, 0), 101.0)
    tracker.add(Started(second.id, 1), 101.0)
    tracker.add(Stepped(first.id, 1, 3, 4), 102.0)
    pretrain, finetune = stages(tracker).values()
    assert (pretrain.models, pretrain.epochs, pretrain.training) == (2, 4, 2)
    assert (finetune.models, finetune.epochs, finetune.training) == (4, 4, 0)
    assert pretrain.epochs_done == pytest.approx(0.75)
    tracker.add(EpochEnded(first.id, 1, {}), 103.0)
    assert stages(tracker)["pretrain"].epochs_done == pytest.approx(1.0)
    tracker.add(Ended(first.id, "diverged", "the loss was nan"), 104.0)
    pretrain = stages(tracker)["pretrain"]
    assert (pretrain.diverged, pretrain.training) == (1, 1)
    assert pretrain.epochs_done == pytest.approx(2.0)  # none of it is left to do


def test_an_epoch_that_is_written_late_takes_no_step_back(tracker, planned):
    first = planned.of_stage("pretrain")[0]
    tracker.add(Started(first.id, 0), 101.0)
    tracker.add(Stepped(first.id, 2, 1, 4), 102.0)
    tracker.add(EpochEnded(first.id, 1, {}), 102.5)
    assert stages(tracker)["pretrain"].epochs_done == pytest.approx(1.25)


def test_what_was_there_counts_as_it_was(planned):
    first, second = (model.id for model in planned.of_stage("pretrain"))
    tracker = Tracker(planned, [first, second], {second: "nan"}, labels(planned), 1, 5.0)
    pretrain = stages(tracker)["pretrain"]
    assert (pretrain.existing, pretrain.diverged, pretrain.finished) == (1, 1, 0)
    assert pretrain.epochs_done == 4
    (problem,) = status_of(tracker, 6.0).problems
    assert (problem.model, problem.kind, problem.message) == (second, "diverged", "nan")
    assert problem.at == 5.0
    assert tracker.is_complete


def test_a_worker_sets_up_trains_scores_and_writes(tracker, planned):
    first = planned.of_stage("pretrain")[0]

    def now_does():
        (training,) = status_of(tracker, 200.0).training
        return training.phase, training.epoch, training.step, training.since

    tracker.add(Started(first.id, 1), 101.0)
    assert now_does() == ("set-up", 0, 0, 101.0)
    tracker.add(Spent(first.id, "node 7", "set-up", 101.0, 102.0), 102.0)
    tracker.add(Spent(first.id, "node 7", "score", 102.0, 103.0, 0), 103.0)
    assert now_does() == ("train", 1, 0, 103.0)
    tracker.add(Stepped(first.id, 1, 3, 4), 104.0)
    assert now_does() == ("train", 1, 3, 103.0)
    tracker.add(Spent(first.id, "node 7", "train", 103.0, 105.0, 1), 105.0)
    assert now_does() == ("score", 1, 3, 105.0)
    tracker.add(Spent(first.id, "node 7", "score", 105.0, 106.0, 1), 106.0)
    assert now_does() == ("train", 2, 0, 106.0)
    tracker.add(Spent(first.id, "node 7", "train", 106.0, 107.0, 2), 107.0)
    tracker.add(Spent(first.id, "node 7", "score", 107.0, 108.0, 2), 108.0)
    assert now_does() == ("write", 2, 0, 108.0)
    (training,) = status_of(tracker, 200.0).training
    assert (training.worker, training.process, training.epochs) == (1, "node 7", 2)
    assert training.label.startswith("seed=")


def test_a_stack_is_followed_by_its_first_model(tracker, planned):
    first, second = planned.of_stage("pretrain")
    child = planned.of_stage("finetune")[0]
    for model, worker in ((first, 0), (second, 0), (child, 1)):
        tracker.add(Started(model.id, worker), 101.0)
    tracker.add(Spent(first.id, "node 7", "train", 101.0, 102.0, 1), 102.0)
    phases = [training.phase for training in status_of(tracker, 103.0).training]
    assert phases == ["score", "score", "set-up"]


def test_rates_are_of_the_work_of_all_workers(tracker, planned):
    first, second = planned.of_stage("pretrain")
    batch = first.recipe.batch_size
    status_of(tracker, 100.0)
    tracker.add(Started(first.id, 0), 100.0)
    tracker.add(Started(second.id, 1), 100.0)
    tracker.add(Stepped(first.id, 1, 5, 10), 104.0)
    # it was resumed: its first epoch was trained another time
    tracker.add(Stepped(second.id, 2, 2, 10), 104.0)
    status = status_of(tracker, 110.0)
    assert status.epochs_per_second == pytest.approx((0.5 + 0.2) / 10)
    assert status.images_per_second == pytest.approx(7 * batch / 10)
    tracker.add(EpochEnded(second.id, 2, {}), 170.0)
    status = status_of(tracker, 172.0)  # of the last minute: from 110 on
    assert status.epochs_per_second == pytest.approx(0.8 / 62)
    assert status.images_per_second == pytest.approx(8 * batch / 62)


def test_nothing_trained_is_no_rate(tracker):
    tracker.add(Notice("looking around"), 130.0)
    status = status_of(tracker, 140.0)
    assert (status.epochs_per_second, status.images_per_second) == (None, None)


def test_every_problem_is_named_with_its_model(tracker, planned):
    first, second = planned.of_stage("pretrain")
    child = planned.of_stage("finetune")[0]
    tracker.add(Started(first.id, 0), 101.0)
    tracker.add(Retried(first.id, "killed by SIGKILL"), 102.0)
    assert stages(tracker)["pretrain"].training == 0
    assert tracker.is_complete
    tracker.add(Halved(1, "MemoryError"), 102.5)
    tracker.add(Ended(second.id, "failed", "no [such]\x1b data"), 103.0)
    tracker.add(Ended(child.id, "skipped", "its parent has no weights"), 104.0)
    status = status_of(tracker, 105.0)
    assert [(p.model, p.kind, p.message, p.at) for p in status.problems] == [
        (first.id, "retried", "killed by SIGKILL", 102.0),
        (second.id, "failed", r"no [such]\x1b data", 103.0),
        (child.id, "skipped", "its parent has no weights", 104.0),
    ]
    assert [note.text for note in status.notes] == [
        "out of memory (MemoryError); now at most 1 models at a time"
    ]
    assert status.workers == 1
    assert not tracker.is_complete


def test_thousands_of_skipped_children_hide_no_failure(tiny):
    tiny["stages"]["finetune"]["grid"]["optimizer.lr"] = [0.001 * n for n in range(1, 101)]
    large = plan(Blueprint.read(tiny))
    tracker = Tracker(large, [], {}, labels(large), 1, 0.0)
    parent = large.of_stage("pretrain")[0]
    tracker.add(Ended(parent.id, "failed", "no data"), 1.0)
    for child in large.of_stage("finetune"):
        tracker.add(Ended(child.id, "skipped", "no parent"), 2.0)
    kinds = [problem.kind for problem in status_of(tracker, 3.0).problems]
    assert (kinds[0], {*kinds[1:]}) == ("failed", {"skipped"})
    assert stages(tracker)["finetune"].skipped == 200


def test_what_has_ended_keeps_its_last_finite_metrics(tracker, planned):
    first = planned.of_stage("pretrain")[0]
    tracker.add(Started(first.id, 0), 101.0)
    tracker.add(EpochEnded(first.id, 1, {"val_accuracy": 0.5}), 110.0)
    tracker.add(EpochEnded(first.id, 2, {"val_accuracy": 0.75, "val_loss": float("nan")}), 120.0)
    tracker.add(Ended(first.id, "finished"), 121.0)
    (ended,) = status_of(tracker, 122.0).recent
    assert (ended.model, ended.seconds, ended.metrics) == (first.id, 20.0, {"val_accuracy": 0.75})
    assert status_of(tracker, 122.0).training == []


def test_of_a_large_stack_some_are_listed_and_all_are_counted(tiny):
    tiny["stages"]["pretrain"]["grid"]["seed"] = [*range(MAX_LISTED + 6)]
    large = plan(Blueprint.read({**tiny, "stages": {"pretrain": tiny["stages"]["pretrain"]}}))
    tracker = Tracker(large, [], {}, labels(large), 1, 0.0)
    for model in large.models:
        tracker.add(Started(model.id, 0), 1.0)
    status = status_of(tracker, 2.0)
    assert (status.in_training, len(status.training)) == (MAX_LISTED + 6, MAX_LISTED)
