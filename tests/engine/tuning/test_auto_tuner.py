"""What `auto` chooses, on machines whose speeds the test makes up, and on this one."""

import json

import numpy as np
import pytest
import torch

from vitarium import Blueprint, plan
from vitarium.core import files
from vitarium.core.errors import DamagedCache, InvalidInput
from vitarium.core.registry import choose
from vitarium.engine.tuning._bench import Bench
from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest, models_per_gpu
from vitarium.engine.tuning.calibration import Calibration, NotMeasured, Speed, TrainMode
from vitarium.engine.tuning.gain import Gain
from vitarium.engine.tuning.machine import Machine

GIB = 2**30


class MadeUp(Calibration):
    """A machine on which a step takes as many seconds as `seconds(way)` says."""

    def __init__(self, seconds, precisions=("bf16",), start=60.0, spreads=(0.0,)):
        super().__init__("cpu", 1)
        self.seconds, self.made_up, self.start = seconds, precisions, start
        self.spreads = spreads
        self.arguments = []
        self.series = []

    def speed(self, recipe, num_outputs, mode=TrainMode()):  # noqa: B008
        self.arguments.append(mode)
        return Speed(self.seconds(mode), recipe.batch_size, self.start * mode.compiled, 0)

    def gain(self, recipe, num_outputs, mode, faster, *, series=0):
        """With the distance between the quartiles that the series has."""
        self.series.append((faster.precision, series))
        median = self.seconds(mode) / mode.stacked * faster.stacked / self.seconds(faster)
        half = self.spreads[min(series, len(self.spreads) - 1)] / 2
        return Gain(median, median - half, median + half)

    def precisions(self):
        return list(self.made_up)


def chosen(tiny, seconds, request=None, workers=1, models=2, messages=None, **machine):
    tiny["stages"]["pretrain"]["grid"] = {"seed": list(range(models))}
    tiny["stages"] = {"pretrain": tiny["stages"]["pretrain"]}
    planned = plan(Blueprint.read(tiny))
    say = messages.append if messages is not None else lambda text: None
    made_up = MadeUp(seconds, **machine)
    tuner = AutoTuner(
        planned, Machine(("cpu",), workers, 1), request or TrainRequest(), made_up, say
    )
    return tuner.mode(planned.models[0]), made_up


def test_bf16_is_chosen_where_it_is_clearly_faster(tiny):
    messages = []
    mode, _ = chosen(tiny, lambda mode: 1.0 if mode.precision == "bf16" else 2.0, messages=messages)
    assert mode == TrainMode("bf16")
    assert messages == [
        "pretrain: bf16, not compiled, not stacked (2.0 times as fast as plain fp32, 2.0 to 2.0)"
    ]


def bf16_takes(seconds):
    return lambda mode: seconds if mode.precision == "bf16" else 2.0


def test_noise_does_not_decide(tiny):
    """What is gained has to exceed the spread of the pairs."""
    messages = []
    mode, made_up = chosen(tiny, bf16_takes(1.0), spreads=[0.9], messages=messages)
    assert mode == TrainMode("bf16")
    assert {series for _, series in made_up.series} == {0}
    mode, _ = chosen(tiny, bf16_takes(1.0), spreads=[1.1], messages=messages)
    assert mode == TrainMode()
    assert messages[-2] == (
        "pretrain: bf16 is not clearly faster (2.0 times as fast, quartiles 1.4 and 2.5)"
    )


def test_what_claims_too_much_is_measured_again(tiny):
    mode, made_up = chosen(tiny, bf16_takes(0.2), spreads=[0.5, 0.5])
    assert mode == TrainMode("bf16")
    assert ("bf16", 1) in made_up.series
    mode, made_up = chosen(tiny, bf16_takes(0.2), spreads=[0.5, 20.0])
    assert mode == TrainMode()
    assert ("bf16", 1) in made_up.series


def test_a_claim_that_pairs_do_not_confirm_is_not_believed(tiny):
    """Steps at different times say 71 times as fast, steps in turn do not."""

    class Busy(MadeUp):
        def gain(self, *question, series=0):
            return Gain.of([0.9, 1.1, 1.0, 1.2, 0.95])

    planned = plan(Blueprint.read(tiny))
    busy = Busy(bf16_takes(2.0 / 71))
    tuner = AutoTuner(planned, Machine(("cpu",), 1, 1), TrainRequest(), busy)
    assert tuner.mode(planned.models[0]) == TrainMode()


@pytest.mark.parametrize(
    ("ratios", "is_clear"),
    [
        ([2.0] * 5, True),
        ([1.2] * 5, False),
        ([1.9, 2.0, 2.1, 2.0, 60.0], True),  # one disturbed step
        ([1.0, 1.0, 60.0, 71.0, 80.0], False),
        ([0.5, 0.9, 1.4, 2.0, 3.0], False),
    ],
)
def test_a_gain_is_clear_where_its_median_exceeds_the_spread(ratios, is_clear):
    gain = Gain.of(ratios)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    assert gain == pytest.approx((median, low, high))
    assert gain.is_clear(1.3) is is_clear


def test_fp32_stays_where_bf16_gains_little(tiny):
    mode, _ = chosen(tiny, lambda mode: 1.0 if mode.precision == "bf16" else 1.2)
    assert mode == TrainMode()


@pytest.mark.parametrize("seconds", [None, 0.5])
@pytest.mark.parametrize("objective", ["soft_distillation", "weight_distillation"])
def test_an_objective_that_reads_blocks_is_not_compiled_and_that_is_said(tiny, objective, seconds):
    def speed(mode):
        if seconds is None:
            raise RuntimeError("no way to measure")
        return seconds

    stage = tiny["stages"]["pretrain"]
    stage["objective"] = {"name": objective, "teacher": "./teacher"}
    messages = []
    mode, _ = chosen(tiny, speed, TrainRequest(compiled=True), messages=messages)
    assert mode.compiled == (objective == "soft_distillation")
    if objective == "weight_distillation":
        assert any(
            "pretrain: not compiled, since its objective looks into" in text for text in messages
        )


def test_short_plans_do_not_even_measure_a_compilation(tiny):
    _, made_up = chosen(tiny, lambda mode: 0.5 if mode.compiled else 1.0)
    assert not any(mode.compiled for mode in made_up.arguments)


@pytest.mark.parametrize(("gain", "pays"), [(1.5, True), (1.05, False)])
def test_long_plans_are_compiled_where_it_pays(tiny, gain, pays):
    tiny["stages"]["pretrain"]["epochs"] = 1000
    mode, _ = chosen(tiny, lambda mode: 1 / gain if mode.compiled else 1.0)
    assert mode.compiled == pays


def test_a_compilation_that_takes_longer_than_it_gains_is_not_chosen(tiny):
    tiny["stages"]["pretrain"]["epochs"] = 1000
    mode, _ = chosen(tiny, lambda mode: 0.5 if mode.compiled else 1.0, start=1e6)
    assert not mode.compiled


def test_stacks_grow_as_long_as_they_gain(tiny):
    def seconds(mode):  # of a device that is hardly used by 20 models
        return 0.01 * max(1, mode.stacked / 20)

    mode, _ = chosen(tiny, seconds, models=100)
    assert mode.stacked == 16


def test_stacks_leave_work_for_every_worker(tiny):
    mode, _ = chosen(tiny, lambda mode: 0.01, models=100, workers=10)
    assert mode.stacked == 4


def test_where_a_step_takes_long_no_stack_is_measured(tiny):
    _, made_up = chosen(tiny, lambda mode: 1.0, models=100)
    assert all(mode.stacked == 1 for mode in made_up.arguments)


def test_models_that_cannot_be_stacked_are_not(tiny):
    tiny["stages"]["pretrain"]["architecture"]["drop_rate"] = 0.1
    mode, _ = chosen(tiny, lambda mode: 0.01, request=TrainRequest(stacked=8), models=100)
    assert mode.stacked == 1


def test_what_is_asked_for_is_done_without_measuring(tiny):
    mode, made_up = chosen(tiny, lambda mode: 1.0, request=TrainRequest("bf16", True, 2))
    assert mode == TrainMode("bf16", True, 2)
    assert made_up.arguments == []


def test_what_cannot_be_measured_is_trained_plainly_and_said(tiny):
    def broken(mode):
        raise torch.OutOfMemoryError("full")

    messages = []
    mode, _ = chosen(tiny, broken, messages=messages)
    assert mode == TrainMode()
    assert messages == ["pretrain: cannot be measured, so it is trained plainly: full"]


def test_of_an_error_the_cause_is_said_and_not_the_advice_to_developers(tiny):
    def broken(mode):
        raise RuntimeError("no C++ compiler was found\n\nSet TORCHDYNAMO_VERBOSE=1 for more")

    messages = []
    chosen(tiny, broken, messages=messages)
    assert messages[0].endswith("trained plainly: no C++ compiler was found")


def test_what_is_asked_for_is_done_where_the_data_are_elsewhere(tiny):
    tiny["stages"]["pretrain"]["data"] = {"name": "image_folder", "folder": "nowhere"}
    mode, made_up = chosen(tiny, lambda mode: 1.0, request=TrainRequest("bf16", stacked=2))
    assert mode == TrainMode("bf16", stacked=2)
    assert made_up.arguments == []


@pytest.mark.parametrize("wanted", [{"precision": "fp8"}, {"stacked": 0}])
def test_what_there_is_not_is_refused(wanted):
    with pytest.raises(InvalidInput):
        TrainRequest(**wanted)


@pytest.mark.parametrize(
    ("total", "needed", "cores", "busy", "expected"),
    [
        (80 * GIB, 1 * GIB, 16, False, 16),
        (80 * GIB, 10 * GIB, 16, False, 6),
        (80 * GIB, 10 * GIB, 16, True, 1),
        (8 * GIB, 20 * GIB, 16, False, 1),
    ],
)
def test_a_gpu_is_shared_by_as_many_as_fit_unless_one_keeps_it_busy(
    total, needed, cores, busy, expected
):
    assert models_per_gpu(total, needed, cores, busy=busy) == expected


# This machine


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path))
    return tmp_path / "speeds.json"


@pytest.mark.parametrize("mode", [TrainMode(), TrainMode("bf16"), TrainMode(stacked=3)])
def test_a_speed_is_measured_once_and_kept(tiny, cache, mode):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    messages = []
    first = Calibration("cpu", 1, messages.append).speed(recipe, 10, mode)
    again = Calibration("cpu", 1, messages.append).speed(recipe, 10, mode)
    assert first == again
    assert len(messages) == 1
    assert 0 < first.per_image < 1
    assert len(json.loads(cache.read_text())["speeds"]) == 1


def test_steps_of_two_modes_are_measured_in_turn_once_and_kept(tiny, cache, monkeypatch):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    order, step = [], Bench.step

    def noting(bench):
        order.append(bench.options.precision)
        return step(bench)

    monkeypatch.setattr(Bench, "step", noting)
    calibration = Calibration("cpu", 1)
    calibration.speed(recipe, 10)
    order.clear()
    gain = calibration.gain(recipe, 10, TrainMode(), TrainMode("bf16"))
    pairs = list(zip(order[::2], order[1::2], strict=True))
    assert len(pairs) > 5
    assert all(set(pair) == {"fp32", "bf16"} for pair in pairs)
    assert len(set(pairs)) == 2  # in either order
    order.clear()
    assert Calibration("cpu", 1).gain(recipe, 10, TrainMode(), TrainMode("bf16")) == gain
    assert order == []
    calibration.gain(recipe, 10, TrainMode(), TrainMode("bf16"), series=1)
    assert order
    assert len(json.loads(cache.with_name("gains.json").read_text())["gains"]) == 2


def test_what_is_not_known_is_not_measured_where_that_is_not_wanted(tiny, cache):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    calibration = Calibration("cpu", 1)
    modes = TrainMode(), TrainMode("bf16")
    with calibration.known_only(), pytest.raises(NotMeasured):
        calibration.speed(recipe, 10)
    known = calibration.speed(recipe, 10)
    with calibration.known_only():
        assert calibration.speed(recipe, 10) == known
        with pytest.raises(NotMeasured):
            calibration.gain(recipe, 10, *modes)
    assert not cache.with_name("gains.json").exists()


def test_kinds_are_counted_while_they_are_measured(tiny, cache):
    tiny["stages"]["pretrain"]["epochs"] = 1
    planned, messages = plan(Blueprint.read(tiny)), []
    machine, request = Machine(("cpu",), 1, 1), TrainRequest("auto", False, "auto")
    for expected in (["kind 1 of 2; once per machine", "kind 2 of 2; once per machine"], []):
        messages.clear()
        calibration = Calibration("cpu", 1, messages.append)
        AutoTuner(planned, machine, request, calibration).choose(planned.models)
        assert [text.rpartition(", ")[2] for text in messages] == expected


def test_other_threads_are_another_measurement(tiny, cache):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    before = torch.get_num_threads()
    for threads in (1, 2):
        Calibration("cpu", threads).speed(recipe, 10)
    assert len(json.loads(cache.read_text())["speeds"]) == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"{",
        lambda whole: b"\xff[]",
        lambda whole: whole.replace(b'"memory": 0', b'"memory": 8'),
        lambda whole: whole.replace(b"xxh3", b"xxi3"),
        lambda whole: files.with_checksum({"speeds": {"key": {"seconds": 1}}}).encode(),
        lambda whole: files.with_checksum({"speeds": [1]}).encode(),
        None,
    ],
)
def test_damaged_speeds_are_measured_again(tiny, cache, damage):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    Calibration("cpu", 1).speed(recipe, 10)
    whole = cache.read_bytes()
    cache.unlink()
    if damage:
        cache.write_bytes(damage(whole))
        assert cache.read_bytes() != whole
    else:
        cache.mkdir()
    with pytest.warns(DamagedCache, match=r"speeds\.json was damaged"):
        Calibration("cpu", 1).speed(recipe, 10)
    assert len(json.loads(cache.read_text())["speeds"]) == 1


def test_measuring_leaves_the_random_generators_alone(tiny, cache):
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    state = torch.get_rng_state()
    Calibration("cpu", 1).speed(recipe, 10)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_has_a_teacher_is_measured_with_one_of_its_own_kind(tiny, cache):
    tiny["stages"]["pretrain"]["objective"] = {
        "name": "weight_distillation",
        "teacher": "./not-here.safetensors",  # of 24 blocks
        "teacher_architecture": {"name": "vit", "embed_dim": 64, "depth": 24, "num_heads": 2},
        "teacher_sha256": "0" * 64,
        "layers": [[0, 23]],
    }
    recipe = plan(Blueprint.read(tiny)).models[0].recipe
    calibration = Calibration("cpu", 1)
    taught = calibration.speed(recipe, 10)
    assert 0 < taught.per_image < 1
    by_parent = choose("objective", "weight_distillation", layers=[[0, 0]])
    assert calibration.knows(recipe.changed({"objective": by_parent}), 10, TrainMode())
