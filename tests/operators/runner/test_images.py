"""Ingredients whose images are prepared in different ways, where one running model is scored."""

import json
import re
import warnings

import pytest

from vitarium import merge
from vitarium.core.errors import InvalidInput
from vitarium.data.preprocessing import Preprocessing
from vitarium.operators._runner.images import check_images_alike

CLASSES = json.dumps([str(n) for n in range(10)])
KNOWN = {"mean": "[0.2]", "std": "[0.5]", "classes": CLASSES}
ON = {"data": "digits", "force": True}


def test_one_model_is_not_scored_for_models_of_different_normalizations(grown_zoo, imported_digits):
    pair = imported_digits(grown_zoo, KNOWN, {**KNOWN, "mean": "[0.6]"})
    for method, settings in (("greedy_soup", {}), ("learned_soup", {"epochs": 1})):
        with pytest.raises(InvalidInput) as refused:
            merge(grown_zoo, method, models=pair, **ON, **settings)
        expected = rf"{method} .* {pair[0]} .* mean/std 0.2/0.5 and {pair[1]} with mean/std 0.6/0.5"
        assert re.search(expected, str(refused.value))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["fisher_merging", "uniform_soup"])
def test_methods_that_run_each_model_by_itself_or_none_take_them(
    grown_zoo, imported_digits, method
):
    pair = imported_digits(grown_zoo, KNOWN, {**KNOWN, "mean": "[0.6]"})
    assert merge(grown_zoo, method, models=pair, **ON).state_dict()


def test_models_of_one_normalization_are_scored_without_a_word(grown_zoo, imported_digits):
    pair = imported_digits(grown_zoo, KNOWN, KNOWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert merge(grown_zoo, "greedy_soup", models=pair, **ON).state_dict()


def preparation(mean=0.5, std=0.5, resize=32, interpolation="bilinear"):
    return Preprocessing((3, 32, 32), resize, interpolation, (mean,) * 3, (std,) * 3)


@pytest.mark.parametrize("changes", [{"resize": 36}, {"interpolation": "bicubic"}])
def test_where_only_the_resizing_differs_there_is_one_warning(changes):
    prepared = {"a": preparation(), "b": preparation(**changes), "c": preparation(**changes)}
    with pytest.warns(UserWarning, match="resized as those of a; b, c had") as warned:
        check_images_alike("greedy_soup", prepared)
    assert len(warned) == 1


@pytest.mark.parametrize("changes", [{"mean": 0.51}, {"std": 0.49}])
def test_mean_and_std_are_compared_up_to_half_a_gray_value(changes):
    check_images_alike("greedy_soup", {"a": preparation(), "b": preparation(0.501, 0.499)})
    with pytest.raises(InvalidInput, match="normalized alike"):
        check_images_alike("greedy_soup", {"a": preparation(), "b": preparation(**changes)})


def test_images_of_another_size_are_named():
    small = Preprocessing((3, 16, 16), 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(
        InvalidInput, match="a takes them of 3 x 32 x 32 and b of 3 x 16 x 16 pixels"
    ):
        check_images_alike("greedy_soup", {"a": preparation(), "b": small})
