"""Bits of layers under a budget, against every possible allocation."""

from itertools import product

import pytest

from vitarium.operators.quantization._bit_allocation import allocate_bits, mean_of_bits

IMPORTANCES = {"a": 0.5, "b": 9.0, "c": 1.0, "d": 0.01}


def error(importances, bits):
    return sum(importances[name] * 4.0 ** -bits[name] for name in bits)


@pytest.mark.parametrize("mean_bits", [3, 3.25, 4, 5.5, 8])
def test_layers_of_equal_size_get_the_best_of_all_allocations(mean_bits):
    sizes = dict.fromkeys(IMPORTANCES, 10)
    bits = allocate_bits(IMPORTANCES, sizes, mean_bits)
    possible = [dict(zip(sizes, c, strict=True)) for c in product(range(3, 9), repeat=4)]
    within = [option for option in possible if mean_of_bits(option, sizes) <= mean_bits]
    best = min(error(IMPORTANCES, option) for option in within)
    assert error(IMPORTANCES, bits) == pytest.approx(best, rel=1e-12)
    assert mean_of_bits(bits, sizes) == mean_bits


def test_with_unequal_sizes_no_layer_still_fits_and_the_budget_holds():
    sizes = {"a": 30, "b": 70, "c": 7, "d": 11}
    bits = allocate_bits(IMPORTANCES, sizes, 4.6)
    spent = sum(sizes[name] * bits[name] for name in sizes)
    left = 4.6 * sum(sizes.values()) - spent
    assert 0 <= left < min(sizes[name] for name in sizes if bits[name] < 8)


def test_more_important_layers_of_equal_size_get_no_fewer_bits():
    bits = allocate_bits(IMPORTANCES, dict.fromkeys(IMPORTANCES, 3), 5)
    assert bits["b"] >= bits["c"] >= bits["a"] >= bits["d"]
    assert bits["b"] > bits["d"]


def test_equal_importance_and_size_give_equal_bits():
    names = ["x", "y", "z"]
    assert set(allocate_bits(dict.fromkeys(names, 1.0), dict.fromkeys(names, 5), 6).values()) == {6}


def test_a_layer_without_importance_gets_what_is_left_over():
    bits = allocate_bits({"a": 1.0, "b": 0.0}, {"a": 1, "b": 1}, 6.5)
    assert bits == {"a": 8, "b": 5}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"2\.5 mean bits are less than the fewest of a layer, 3"):
        allocate_bits({"a": 1.0}, {"a": 1}, 2.5)
    with pytest.raises(ValueError, match="different layers"):
        allocate_bits({"a": 1.0}, {"b": 1}, 4)
