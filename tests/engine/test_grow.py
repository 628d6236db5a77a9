"""Growing a zoo: what is trained, what is not, and what happens when things go wrong."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest

from vitarium import Blueprint, Zoo, grow
from vitarium.engine.events import Ended, EpochEnded, Retried, Started
from vitarium.errors import InvalidInput, NotAZoo
from vitarium.store import ModelFolder

HERE = Path(__file__).parent


def checkpoints(zoo: Zoo) -> dict[str, bytes]:
    files = sorted((zoo.path / "models").glob("*/checkpoints/*"))
    return {str(file.relative_to(zoo.path)): file.read_bytes() for file in files}


def grown(values, path, **options):
    return grow(
        Blueprint.read(values), path, workers=options.pop("workers", 0), progress=False, **options
    )


def test_every_model_of_the_plan_is_grown(tiny, tmp_path):
    growth = grown(tiny, tmp_path / "zoo")
    assert growth.complete
    assert sorted(growth.grown) == sorted(model.id for model in growth.plan.models)
    table = Zoo.open(tmp_path / "zoo").models()
    assert set(table["status"]) == {"finished"}
    assert table["test_accuracy"].notna().all()


def test_a_zoo_that_is_grown_again_trains_nothing(tiny, tmp_path):
    before = checkpoints(grown(tiny, tmp_path / "zoo").zoo)
    again = grown(tiny, tmp_path / "zoo")
    assert (again.grown, len(again.already)) == ([], 6)
    assert checkpoints(again.zoo) == before


def test_an_extended_grid_trains_the_new_models_alone(tiny, tmp_path):
    first = grown(tiny, tmp_path / "zoo")
    before = checkpoints(first.zoo)
    tiny["stages"]["finetune"]["grid"]["optimizer.lr"].append(0.1)
    second = grown(tiny, tmp_path / "zoo")
    assert len(second.grown) == 2
    assert not set(second.grown) & set(first.grown)
    assert before.items() <= checkpoints(second.zoo).items()


def test_two_zoos_of_a_blueprint_are_equal_bit_for_bit(tiny, tmp_path):
    one, other = (grown(tiny, tmp_path / name).zoo for name in ("one", "other"))
    assert checkpoints(one) == checkpoints(other)


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
    again = grown(tiny, tmp_path / "zoo")
    assert (again.grown, len(again.diverged), len(again.skipped)) == ([], 1, 2)


def test_a_model_that_cannot_be_trained_is_reported_and_the_rest_goes_on(tiny, tmp_path):
    tiny["stages"]["finetune"]["grid"] = {"batch_size": [32, 4096]}
    growth = grown(tiny, tmp_path / "zoo")
    assert len(growth.failed) == 2
    assert all("a batch of 4096 images" in why for why in growth.failed.values())
    assert len(growth.grown) == 4
    assert not growth.complete


def test_a_parent_without_a_child_it_fits_is_named(tiny, tmp_path):
    tiny["stages"]["finetune"]["architecture"] = {"embed_dim": 32}
    growth = grown(tiny, tmp_path / "zoo")
    assert all("weights do not fit" in why for why in growth.failed.values())


def test_a_damaged_parent_is_named_and_not_used(tiny, tmp_path):
    first = {"name": "tiny", "stages": {"pretrain": tiny["stages"]["pretrain"]}}
    zoo = grown(first, tmp_path / "zoo").zoo
    parent = ModelFolder(zoo.path / "models" / zoo.ids()[0])
    file = parent.checkpoint_path(2)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    growth = grown(tiny, tmp_path / "zoo")
    assert len(growth.failed) == 2
    assert all("corrupt file" in why and str(file) in why for why in growth.failed.values())


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


@pytest.fixture
def faulty(tiny, tmp_path, monkeypatch):
    """The tiny blueprint's first stage, with a training that goes wrong in its worker."""
    monkeypatch.setenv("VITARIUM_PLUGINS", "faulty_plugins")
    monkeypatch.syspath_prepend(str(HERE))
    from vitarium import registry

    registry._load_outside.cache_clear()

    def make(**settings):
        values = deepcopy(tiny)
        del values["stages"]["finetune"]
        settings = {"name": "faulty", "tally": str(tmp_path / "tally"), **settings}
        values["stages"]["pretrain"]["variants"] = [
            {"objective": settings, "grid": {"seed": [1]}},
            {},
        ]
        return values

    yield make
    sys.modules.pop("faulty_plugins", None)
    registry._load_outside.cache_clear()
    registry._plugins["objective"].pop("faulty", None)


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
def test_workers_give_the_bits_of_this_process(tiny, tmp_path):
    here = grown(tiny, tmp_path / "here").zoo
    there = grown(tiny, tmp_path / "there", workers=2).zoo
    assert checkpoints(here) == checkpoints(there)
