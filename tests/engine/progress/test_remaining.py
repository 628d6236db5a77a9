"""The time left is estimated from epochs that were measured."""

import pytest

from vitarium import Blueprint, plan
from vitarium.engine.events import Ended, EpochEnded, Started, Stepped
from vitarium.engine.progress.remaining import Remaining


@pytest.fixture
def planned(tiny):
    return plan(Blueprint.read(tiny))  # 2 models of 2 epochs, 4 of 1


def test_nothing_is_known_before_something_is_measured(planned):
    assert Remaining(planned, [], 1).seconds() is None


def test_measured_epochs_and_expectations_that_are_as_far_off_make_the_rest(planned):
    first, second = planned.of_stage("pretrain")
    expected = {"pretrain": 1.0, "finetune": 3.0}
    remaining = Remaining(planned, [], 1, lambda spec: expected[spec.stage])
    assert remaining.seconds() == pytest.approx(4 * 1 + 4 * 3)
    remaining(EpochEnded(first.id, 1, {"seconds": 2.0}))
    assert remaining.seconds() == pytest.approx(3 * 2 + 4 * 6)
    remaining(EpochEnded(planned.of_stage("finetune")[0].id, 1, {"seconds": 4.0}))
    assert remaining.seconds() == pytest.approx(3 * 2 + 3 * 4)
    remaining(Ended(second.id, "failed"))
    assert remaining.seconds() == pytest.approx(1 * 2 + 3 * 4)


def test_steps_tell_before_the_first_epoch_has_ended(planned):
    now = iter([100.0, 103.0, 104.0, 200.0, 201.0])
    remaining = Remaining(planned, [], 1, lambda spec: 1000.0, clock=lambda: next(now))
    first = planned.of_stage("pretrain")[0]
    remaining(Stepped(first.id, 1, 10, 100))
    assert remaining.seconds() == pytest.approx(1000 * (1.9 + 2 + 4))
    remaining(Stepped(first.id, 1, 40, 100))  # 30 steps in 3 seconds: 10 an epoch
    assert remaining.seconds() == pytest.approx(10 * (1.6 + 2) + 1000 * 4)
    remaining(Stepped(first.id, 2, 1, 100))  # what lies between two epochs is no step
    assert remaining.seconds() == pytest.approx(10 * (0.99 + 2) + 1000 * 4)
    remaining(EpochEnded(first.id, 2, {"seconds": 20.0}))  # with scoring
    assert remaining.seconds() == pytest.approx(20 * 2 + 4 * 1000 * 20 / 1000)


def test_work_is_shared_out_but_the_longest_model_is_not(planned):
    four = Remaining(planned, [], 4, lambda spec: 1.0)
    assert four.seconds() == pytest.approx(2.0)
    many = Remaining(planned, [], 100, lambda spec: 1.0)
    assert many.seconds() == pytest.approx(2.0)


def test_models_of_a_stack_are_trained_at_the_same_time(planned):
    remaining = Remaining(planned, [], 1, lambda spec: 1.0)
    children = planned.of_stage("finetune")
    for model in children:
        remaining(Started(model.id))
    remaining(EpochEnded(children[0].id, 0, {"seconds": 8.0}))
    for model in planned.of_stage("pretrain"):
        remaining(Ended(model.id, "failed"))
    assert remaining.seconds() == pytest.approx(8.0)


def test_models_that_are_there_already_take_no_time(planned):
    done = [model.id for model in planned.models]
    assert Remaining(planned, done, 1, lambda spec: 1.0).seconds() == 0


def test_what_is_expected_later_counts_although_nothing_was_known_before(planned):
    remaining = Remaining(planned, [], 1)
    assert remaining.seconds() is None
    remaining.expect(lambda spec: 2.0)
    assert remaining.seconds() == pytest.approx(2 * (2 * 2 + 4 * 1))
