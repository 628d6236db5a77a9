"""The benchmark of rates: methods that there are, orders with their intervals, and its tables."""

import numpy as np
import pytest
import twin_rates
from scipy import stats
from twin_rates_table import Order, Row, markdown, verdict

from vitarium.core.registry import choose

ACCURACIES = {"a": [0.8, 0.7, 0.75], "b": [0.6, 0.55, 0.5], "c": [0.7, 0.8, 0.6]}


@pytest.fixture
def rows():
    rows = [Row("digits", "", "original", 1.0, [0.9, 0.8, 0.85], 1.0)]
    rows += [Row("digits", "f", name, 0.5, values, 0.6) for name, values in ACCURACIES.items()]
    return [*rows, Row("digits", "f", "a", 0.3, refused="too few blocks")]


def test_every_curve_is_of_settings_that_its_method_has():
    for family in twin_rates.FAMILIES.values():
        for method in family.values():
            for rate in method.rates:
                section = choose("operator", method.operator, **method.at(rate))
                assert section.plugin.facts["compression"] == "post_training"


def test_what_is_compared_is_in_one_family():
    families = [set(family) for family in twin_rates.FAMILIES.values()]
    pairs = [*twin_rates.RANDOM.items(), *(names for _, *names in twin_rates.PUBLISHED)]
    for pair in pairs:
        assert any(set(pair) <= family for family in families), pair


def test_an_order_is_judged_by_the_interval_of_paired_differences(rows):
    order = Order.of(("a beats b", "a", "b"), rows, "digits")
    expected = stats.ttest_rel(ACCURACIES["a"], ACCURACIES["b"]).confidence_interval(0.95)
    (difference,) = order.rates.values()
    assert (difference["low"], difference["high"]) == pytest.approx((expected.low, expected.high))
    assert order.rates.keys() == {"0.5"}
    assert verdict(difference) == "yes"
    (opposite,) = Order.of(("b beats a", "b", "a"), rows, "digits").rates.values()
    assert verdict(opposite) == "no"
    (unclear,) = Order.of(("a beats c", "a", "c"), rows, "digits").rates.values()
    assert verdict(unclear) == "not clear"
    assert verdict({"mean": 0.1}) == "not clear"


def test_the_table_has_differences_from_originals_and_random_choices(rows):
    orders = [Order.of(("a beats b", "a", "b"), rows, "digits")]
    lines = markdown(rows, orders, {"a": "b"}).splitlines()
    (row,) = (line for line in lines if line.startswith("| a | 0.5 |"))
    mean = 100 * np.subtract(ACCURACIES["a"], ACCURACIES["b"]).mean()
    assert f"| {mean:+.1f} [" in row
    assert "| -10.0 [-10.0, -10.0] |" in row
    assert "| a | 0.3 | too few blocks |  |  |  |" in lines
    assert lines[-1].startswith("| a beats b | digits | 0.5 | +20.0 [")
