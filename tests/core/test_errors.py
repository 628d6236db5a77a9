"""Hints at the nearest name."""

import pytest

from vitarium.core.errors import did_you_mean

NAMES = ["hub", "hugging_face", "onnx", "safetensors", "timm", "weight-matching"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("hf", "hugging_face"), ("HF", "hugging_face"), ("wm", "weight-matching"), ("onx", "onnx")],
)
def test_initials_and_misspellings_are_recognized(name, near):
    assert did_you_mean(name, NAMES) == f"; did you mean {near!r}?"


def test_a_longer_name_with_the_same_words_is_meant():
    names = ["calibration_error", "class_accuracy", "class_accuracy_spread", "collaboration"]
    assert did_you_mean("calibration", names) == "; did you mean 'calibration_error'?"
    both = "; did you mean 'class_accuracy' or 'class_accuracy_spread'?"
    assert did_you_mean("accuracy-class", names) == both


def test_initials_of_one_word_are_no_hint():
    assert did_you_mean("t", NAMES).startswith("; known: hub, hugging_face")
