"""The benchmark of architectures: its sizes, its intervals, and what its rows compare."""

import argparse

import numpy as np
import pytest
from architectures_table import Comparison, interval, markdown, rows_of, tau_rows
from measured_steps import Step
from scipy import stats

import architectures
from vitarium import plan
from vitarium.core.registry import plugins, section


def test_widths_give_about_as_many_parameters():
    for task in (architectures.FASHION[1000], architectures.CIFAR):
        settings = architectures.widened("vit", task)
        size = architectures.count(section("architecture", {"name": "vit", **settings}))
        assert size == pytest.approx(architectures.PARAMETERS, rel=0.1)


def test_the_baseline_is_also_trained_for_as_long_a_time():
    task = architectures.FASHION[1000]
    settings = {name: architectures.widened(name, task) for name in ("vit", "mini_deit")}
    steps = {"vit": Step(1000, 1.0, 1), "mini_deit": Step(500, 2.0, 1)}
    design = architectures.Plan(task, settings, steps, range(2))
    models = plan(design.blueprint()).models
    epochs = {(model.stage, model.recipe.epochs) for model in models}
    assert epochs == {("vit", 15), ("mini_deit", 15), ("vit, 30 epochs", 30)}
    assert len(models) == 6


def test_times_are_rounded_to_powers_of_the_root_of_two():
    task = architectures.FASHION[60_000]
    ratios = {"as fast": 1.1, "slower": 1.3, "twice": 2.2, "faster": 0.6}
    steps = {name: Step(1000, ratio, 1) for name, ratio in ratios.items()}
    design = architectures.Plan(task, {}, steps, range(2))
    epochs = {name: design.epochs_in_time_of(name) for name in ratios}
    assert epochs == {"as fast": 1, "slower": 1, "twice": 2, "faster": 1}


def test_settings_are_those_of_architectures_there_are():
    names = {*architectures.SETTINGS, *architectures.BY_TASK, *architectures.LEFT_OUT}
    assert names <= plugins("architecture").keys()


def test_topologies_are_the_same_in_every_run_and_can_be_built():
    drawn = architectures.topologies()
    assert drawn == architectures.topologies()
    assert len(drawn) == architectures.TOPOLOGIES
    for choice in drawn:
        section("architecture", {"name": "vit", "img_size": 28, "in_chans": 1, **choice})


def test_intervals_are_students():
    values = [0.5, 0.52, 0.57]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    bounds = interval(values)
    assert (bounds["low"], bounds["high"]) == pytest.approx((expected.low, expected.high))
    assert interval([0.5]) == {"mean": 0.5}


def test_differences_are_in_pairs_of_seeds():
    row = rows_of(
        [Comparison("t", "a", 10, [0.5, 0.6], [0.4, 0.5], [0.6, 0.5], (2, 3), Step(1, 1.5, 2))]
    )
    assert row[0]["less_vit_same_epochs"]["high"] == pytest.approx(0.1)
    assert row[0]["less_vit_same_time"]["mean"] == pytest.approx(0.0)
    page = markdown({"rows": row, "refused": {"b": "why"}, "tau": []})
    assert "| `a` | 10 | 55.0 " in page
    assert "- `b`: why" in page


def test_tau_of_a_score_that_ranks_like_the_accuracy_is_one():
    import pandas as pd

    accuracy = np.arange(10.0)
    table = pd.DataFrame({"test_accuracy": accuracy, "up": accuracy**3, "down": -accuracy})
    up, down = tau_rows(table, ["up", "down"])
    assert up["tau"] == pytest.approx({"mean": 1, "low": 1, "high": 1})
    assert down["tau"]["mean"] == pytest.approx(-1)


def test_a_trial_has_as_many_epochs_as_it_is_given():
    task = architectures.shortened(architectures.CIFAR, argparse.Namespace(epochs=1))
    assert task.epochs == 1
