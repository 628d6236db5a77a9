"""What augmentation is worth in data, where that is known."""

import math
from itertools import product

import numpy as np
import pytest

from vitarium.core.errors import UnknownName
from vitarium.studies.factors.data_amount import data_factor, equivalents
from vitarium.studies.factors.fit import analyze
from vitarium.studies.factors.observed import observed_of
from vitarium.studies.statistics.bootstrap import Bootstrap

BOOTSTRAP = Bootstrap(n_resamples=200)
AMOUNTS = [100, 200, 400, 800, 1600, 3200]


def known(worth: float, *, noise: float = 0.003, slope: float = 1.0, references=None, amounts=()):
    """Equivalents where augmentation is worth `worth` times as much data, by a power law."""
    random = np.random.default_rng(0)
    rows = {
        f"m{number}": {"data.train_limit": n, "augmentation": a, "seed": s}
        for number, (n, a, s) in enumerate(
            product(amounts or AMOUNTS, ["none", "strong"], range(3))
        )
    }

    def accuracy(row) -> float:
        effective = row["data.train_limit"] * (worth if row["augmentation"] == "strong" else 1)
        return 0.95 - slope * effective**-0.35 + noise * random.normal()

    target = {id: accuracy(row) for id, row in rows.items()}
    observed = observed_of("train", target, rows, dict.fromkeys(rows))
    analysis = analyze(observed, BOOTSTRAP)
    data = data_factor(observed, None)
    assert data.name == "train_limit"
    return equivalents(analysis, data, references or {}, BOOTSTRAP)


@pytest.mark.parametrize("worth", [0.5, 2.0, 4.0])
def test_of_a_power_law_it_is_recovered(worth):
    inside = [row for row in known(worth).rows if 100 < worth * row.amount < 3200]
    assert len(inside) >= 3
    for row in inside:
        assert row.factor == pytest.approx(worth, rel=0.2)
    held = [row.low <= worth <= row.high for row in inside]
    assert sum(held) >= len(held) - 1


def test_of_numbers_drawn_at_random_it_is_recovered():
    amounts = np.exp(np.random.default_rng(1).uniform(math.log(100), math.log(3200), 25))
    rows = known(2.0, amounts=[int(n) for n in amounts]).rows
    assert [row.amount for row in rows] == sorted({row.amount for row in rows})
    (middle,) = rows[1:2]
    assert middle.factor == pytest.approx(2, rel=0.15)
    assert middle.low < 2 < middle.high


def test_what_no_amount_reaches_is_beyond_the_range():
    rows = {row.amount: row for row in known(8.0).rows}
    assert (rows[1600].factor, rows[1600].low) == (math.inf, math.inf)
    assert rows[1600].limits == (100 / 1600, 2)
    assert known(0.1).rows[0].factor == 0


def test_of_a_loss_that_falls_it_is_the_same():
    rows = {row.amount: row for row in known(2.0, slope=-1.0).rows}
    assert rows[400].factor == pytest.approx(2, rel=0.2)


def test_the_reference_may_be_another_level():
    rows = {row.amount: row for row in known(2.0, references={"augmentation": "strong"}).rows}
    assert (rows[400].level, rows[400].reference) == ("none", "strong")
    assert rows[400].factor == pytest.approx(0.5, rel=0.2)


def test_where_data_change_nothing_there_is_none():
    answer = known(2.0, slope=0.0)
    assert answer.rows == []
    assert "does not clearly change with data" in answer.without["augmentation"]


def test_unknown_factors_and_levels_are_named():
    with pytest.raises(UnknownName, match="unknown factor 'augmentatio'; did you mean"):
        known(2.0, references={"augmentatio": "none"})
    with pytest.raises(UnknownName, match="unknown level of augmentation 'weak'"):
        known(2.0, references={"augmentation": "weak"})
