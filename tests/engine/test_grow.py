"""Growing a zoo: what is trained, what is not, and what happens when things go wrong."""

import itertools
import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from vitarium import Blueprint, Zoo, grow
from vitarium.core.errors import InvalidInput, NotAZoo, ZooInUse
from vitarium.engine import interrupts
from vitarium.engine.events import Ended, EpochEnded, Halved, Notice, Retried, Started, Stepped
from vitarium.engine.pools import local
from vitarium.engine.pools._fork_server import ForkServer
from vitarium.zoo import ModelFolder, lock


def checkpoints(zoo: Zoo) -> dict[str, bytes]:
    files = sorted((zoo.path / "models").glob("*/checkpoints/*"))
    return {str(file.relative_to(zoo.path)): file.read_bytes() for file in files}


def grown(values, path, **options):
    """Grow in this process unless told otherwise, in the plainest way: nothing is measured."""
    options = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, **options}
    return grow(Blueprint.read(values), path, progress=False, **options)


def test_every_model_of_the_plan_is_grown(tiny, tmp_path):
    growth = grown(tiny, tmp_path / "zoo")
    assert growth.complete
    assert sorted(growth.grown) == sorted(model.id for model in growth.plan.models)
    assert repr(growth) == f"Growth of {growth.zoo!r}: 6 grown"
    table = Zoo.open(tmp_path / "zoo").models()
    frame = growth.to_frame()
    assert set(frame["outcome"]) == {"grown"}
    assert dict(zip(frame["model"], frame["stage"], strict=True)) == {
        model.id: model.stage for model in growth.plan.models
    }
    assert set(table["status"]) == {"finished"}
    assert table["test_accuracy"].notna().all()


def test_a_zoo_that_is_grown_again_trains_nothing(tiny, grown_zoo):
    before = checkpoints(grown_zoo)
    again = grown(tiny, grown_zoo.path)
    assert (again.grown, len(again.existing)) == ([], 6)
    assert checkpoints(again.zoo) == before
    assert list(again.to_frame()["outcome"]) == ["existing"] * 6


def test_growing_ends_by_the_clock_and_goes_on_to_the_same_bits(tiny, grown_zoo, tmp_path):
    minutes = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=lambda: 60.0 * next(minutes))
        patch.setattr(interrupts, "time", clock)
        first = grown(tiny, tmp_path / "zoo", max_minutes=60)
    assert first.time_is_up
    assert not first.complete
    assert 0 < len(first.grown) < 6
    assert "not yet trained" in repr(first)
    assert json.loads((tmp_path / "zoo" / "growth.json").read_text())["state"] == "interrupted"
    second = grown(tiny, tmp_path / "zoo", max_minutes=1000)
    assert second.complete
    assert not second.time_is_up
    assert checkpoints(second.zoo) == checkpoints(grown_zoo)


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_a_time_that_is_no_time_is_refused(tiny, tmp_path, minutes):
    with pytest.raises(InvalidInput, match="max_minutes="):
        grown(tiny, tmp_path / "zoo", max_minutes=minutes)


def test_an_epoch_may_have_any_number_of_steps(tiny, tmp_path):
    # what augments is drawn by epoch and step, so nothing is augmented here
    settings = {"epochs": 2, "augmentation": "standard"}
    tiny["stages"] = {"pretrain": {**tiny["stages"]["pretrain"], **settings}}
    per_pass = grown(tiny, tmp_path / "passes")
    steps = 0

    def count(event):
        nonlocal steps
        if isinstance(event, Stepped):
            steps = event.steps

    grown(tiny, tmp_path / "again", listener=count)
    tiny["stages"]["pretrain"] |= {"steps_per_epoch": 1, "epochs": 2 * steps}
    single = grown(tiny, tmp_path / "steps")
    for seed, id in enumerate(per_pass.grown):
        weights, same = per_pass.zoo.state_dict(id), single.zoo.state_dict(single.grown[seed])
        assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_an_extended_grid_trains_the_new_models_alone(tiny, grown_zoo):
    before, ids = checkpoints(grown_zoo), grown_zoo.ids()
    tiny["stages"]["finetune"]["grid"]["optimizer.lr"].append(0.1)
    second = grown(tiny, grown_zoo.path)
    assert len(second.grown) == 2
    assert not set(second.grown) & set(ids)
    assert before.items() <= checkpoints(second.zoo).items()


def test_two_zoos_of_a_blueprint_are_equal_bit_for_bit(tiny, tmp_path, grown_zoo):
    assert checkpoints(grown(tiny, tmp_path / "other").zoo) == checkpoints(grown_zoo)


def test_children_of_a_diverged_model_are_skipped_and_the_rest_goes_on(tiny, tmp_path):
    tiny["stages"]["pretrain"]["variants"] = [
        {},
        {"optimizer": {"name": "sgd", "lr": 1e30}, "grid": {"seed": [1]}},
    ]
    growth = grown(tiny, tmp_path / "zoo")
    assert len(growth.diverged) == 1
    assert len(growth.skipped) == 2
    assert len(growth.grown) == 2 + 4
    assert all("has no weights to start from" in why for why in growth.skipped.values())
    assert "6 grown, 2 skipped, 1 diverged\n" in repr(growth)
    assert all(f"{id}: {why}" in repr(growth) for id, why in growth.skipped.items())
    again = grown(tiny, tmp_path / "zoo")
    assert (again.grown, len(again.diverged), len(again.skipped)) == ([], 1, 2)


def test_a_damaged_parent_is_named_and_not_used(tiny, tmp_path):
    first = {"name": "tiny", "stages": {"pretrain": tiny["stages"]["pretrain"]}}
    zoo = grown(first, tmp_path / "zoo").zoo
    parent = ModelFolder(zoo.path / "models" / zoo.ids()[0])
    file = parent.checkpoints.path(2)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    growth = grown(tiny, tmp_path / "zoo")
    assert len(growth.failed) == 2
    assert all("corrupt file" in why and str(file) in why for why in growth.failed.values())
    assert len(growth.grown) == 2
    assert not growth.complete


def test_a_bad_blueprint_writes_nothing(tiny, tmp_path):
    tiny["stages"]["pretrain"]["epochs"] = -1
    with pytest.raises(InvalidInput):
        grown(tiny, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_folder_of_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(NotAZoo):
        grown(tiny, tmp_path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu0"])
def test_an_unknown_device_is_refused(tiny, tmp_path, device):
    with pytest.raises(InvalidInput, match="device"):
        grown(tiny, tmp_path / "zoo", device=device)


def test_events_tell_the_whole_story(tiny, tmp_path):
    events = []
    growth = grown(tiny, tmp_path / "zoo", listener=events.append)
    started = [event.model for event in events if isinstance(event, Started)]
    ended = [event.model for event in events if isinstance(event, Ended)]
    assert started == ended == growth.grown
    epochs = [event.epoch for event in events if isinstance(event, EpochEnded)]
    assert sum(epochs) == 2 * (0 + 1 + 2) + 4 * (0 + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "cause"), [("killed", "SIGKILL"), ("raises", "RuntimeError: a fault on purpose")]
)
def test_a_model_whose_worker_dies_is_tried_again(faulty, tmp_path, fault, cause):
    events = []
    growth = grown(faulty(fault=fault), tmp_path / "zoo", workers=1, listener=events.append)
    assert growth.complete
    assert len(growth.grown) == 3
    (retried,) = [event for event in events if isinstance(event, Retried)]
    assert cause in retried.cause
    trace = tmp_path / "zoo" / "failures" / f"{retried.model}.txt"
    assert trace.exists() == (fault == "raises")


@pytest.mark.slow
def test_a_model_whose_workers_die_twice_has_failed_and_the_rest_goes_on(faulty, tmp_path):
    growth = grown(faulty(times=9), tmp_path / "zoo", workers=1)
    assert len(growth.grown) == 2
    (why,) = growth.failed.values()
    assert "killed by SIGKILL" in why
    assert (tmp_path / "tally").read_text() == "xx"


@pytest.mark.slow
def test_workers_give_the_bits_of_this_process(tiny, tmp_path, grown_zoo):
    there = grown(tiny, tmp_path / "there", workers=2).zoo
    assert checkpoints(grown_zoo) == checkpoints(there)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
def test_a_worker_that_ends_after_its_fork_server_was_killed_is_put_away(monkeypatch):
    server = ForkServer(["engine.fork_targets"], os.environ)
    monkeypatch.setattr(
        local, "_start_worker", lambda file, threads: server.fork("engine.fork_targets:wait")
    )
    worker = local._Process(1, 1)
    server._process.kill()
    server._process.wait()
    os.kill(worker.process.pid, signal.SIGKILL)
    fault = worker.receive()
    assert fault.cause == "it ended after the fork server of all workers was killed"
    worker.stop()
    assert worker.connection.closed


@pytest.mark.slow
def test_without_memory_there_are_half_as_many_models_at_a_time(faulty, tmp_path):
    values, events = faulty(fault="memory", at=3), []
    (tmp_path / "tally").write_text("x")  # so that nothing goes wrong at first
    whole = grown(values, tmp_path / "whole").zoo
    (tmp_path / "tally").unlink()
    growth = grown(values, tmp_path / "halved", workers=2, listener=events.append)
    (halved,) = [event for event in events if isinstance(event, Halved)]
    assert (halved.models, halved.cause) == (1, "MemoryError: no memory on purpose")
    assert "out of memory" in next(e.cause for e in events if isinstance(e, Retried))
    assert growth.complete
    assert len(checkpoints(growth.zoo)) == 9
    assert checkpoints(growth.zoo) == checkpoints(whole)


@pytest.mark.slow
def test_running_out_of_memory_does_not_count_as_a_try_unless_alone(faulty, tmp_path):
    events = []
    values = faulty(fault="memory", times=9)
    growth = grown(values, tmp_path / "zoo", workers=2, listener=events.append)
    assert (tmp_path / "tally").read_text() == "xxx"  # halved, tried alone, tried alone again
    (why,) = growth.failed.values()
    assert "out of memory with one model at a time" in why
    assert "smaller batch_size" in why
    assert len(growth.grown) == 2


def test_without_memory_in_this_process_the_model_fails_and_the_rest_goes_on(faulty, tmp_path):
    growth = grown(faulty(fault="memory"), tmp_path / "zoo")
    assert ["out of memory" in why for why in growth.failed.values()] == [True]
    assert len(growth.grown) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_zoo_of_stacks_has_the_models_of_one_without(tiny, tmp_path, grown_zoo, workers):
    stacks = grown(tiny, tmp_path / "stacks", workers=workers, stacked=4)
    assert sorted(stacks.grown) == sorted(grown_zoo.ids())
    for id in stacks.grown:
        # losses, not weights: AdamW turns the noise of a gradient that is zero into whole steps
        ours, reference = (zoo.epochs(id)["val_loss"] for zoo in (stacks.zoo, grown_zoo))
        assert ours.tolist() == pytest.approx(reference.tolist(), rel=1e-3)
        assert stacks.zoo.folder(id).about().software["stacked"] == "True"


def test_what_is_wrong_with_one_model_of_a_stack_ends_that_one_alone(tiny, tmp_path):
    first = {"name": "tiny", "stages": {"pretrain": tiny["stages"]["pretrain"]}}
    zoo = grown(first, tmp_path / "zoo").zoo
    parent = ModelFolder(zoo.path / "models" / zoo.ids()[0])
    file = parent.checkpoints.path(2)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    growth = grown(tiny, tmp_path / "zoo", stacked=4)
    assert len(growth.failed) == 2
    assert len(growth.grown) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stack_that_takes_too_much_memory_is_halved(faulty, tmp_path, workers):
    values = faulty(fault="memory")
    stage = values["stages"]["pretrain"]
    stage["variants"] = [{**stage["variants"][0], "grid": {"seed": [1, 2, 3, 4]}}]
    del stage["grid"]
    events = []
    options = {"workers": workers, "stacked": 4, "listener": events.append}
    growth = grown(values, tmp_path / "zoo", **options)
    assert growth.complete
    assert len(growth.grown) == 4
    (halved,) = [event for event in events if isinstance(event, Halved)]
    assert halved.models == 2


def test_a_zoo_that_is_being_grown_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_GRACE", 0.1)
    zoo = grown(tiny, tmp_path / "zoo").zoo
    with lock.held(zoo.path), pytest.raises(ZooInUse, match="is being grown by"):
        grown(tiny, tmp_path / "zoo")


def test_a_trace_tells_what_was_done_to_every_model(tiny, tmp_path):
    growth = grown(tiny, tmp_path / "zoo", trace=True)
    events = json.loads((tmp_path / "zoo" / "timeline.json").read_text())["traceEvents"]
    spans = {(e["args"]["model"], e["cat"]) for e in events if e["ph"] == "X"}
    kinds = ("set-up", "train", "score", "write")
    assert spans == {(model, kind) for model in growth.grown for kind in kinds}


def test_what_was_chosen_is_said_and_written_down(tiny, tmp_path):
    messages = []

    def listen(event):
        if isinstance(event, Notice):
            messages.append(event.text)

    auto = {"precision": "auto", "compiled": "auto", "stacked": "auto"}
    zoo = grown(tiny, tmp_path / "zoo", listener=listen, **auto).zoo
    assert any(text.startswith("pretrain: ") for text in messages)
    software = zoo.folder(zoo.ids()[0]).about().software
    assert software["precision"] in ("fp32", "bf16")
    assert any(f": {software['precision']}, not compiled" in text for text in messages)


def test_a_model_goes_on_with_the_precision_with_which_it_was_begun(tiny, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        grown(tiny, tmp_path / "zoo", precision="bf16", listener=stop)
    zoo = Zoo.open(tmp_path / "zoo")
    (begun,) = zoo.ids()
    grown(tiny, tmp_path / "zoo", precision="fp32")
    whole = grown(tiny, tmp_path / "whole", precision="bf16").zoo
    assert zoo.folder(begun).checkpoint(1) == whole.folder(begun).checkpoint(1)
    assert zoo.folder(begun).checkpoint(2) == whole.folder(begun).checkpoint(2)
    software = {zoo.folder(id).about().software["precision"] for id in zoo.ids()}
    assert software == {"bf16", "fp32"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "auto"}, "address='auto' needs engine='ray'"),
        ({"cpus_per_model": 2}, "cpus_per_model=2 needs"),
        ({"gpus_per_model": 0.5}, "gpus_per_model=0.5 needs"),
        ({"engine": "slurm"}, "unknown engine 'slurm'; known: local, ray"),
    ],
)
def test_options_of_another_engine_are_refused(tiny, tmp_path, options, message):
    with pytest.raises(InvalidInput, match=message):
        grown(tiny, tmp_path / "zoo", **options)
    assert not (tmp_path / "zoo").exists()


@pytest.mark.slow
def test_a_worker_that_linux_killed_for_memory_counts_as_out_of_memory(
    faulty, tmp_path, monkeypatch
):
    kills = itertools.count()
    monkeypatch.setattr(local, "_oom_kills", lambda: next(kills))
    events = []
    growth = grown(faulty(fault="killed"), tmp_path / "zoo", workers=2, listener=events.append)
    (halved,) = [event for event in events if isinstance(event, Halved)]
    assert halved.models == 1
    assert "the machine ran out of memory" in halved.cause
    assert growth.complete
