"""Tables as numbers, and as a page shows them."""

import math

import numpy as np
import pandas as pd

from vitarium.studies.report.tables import Section, Sentences, Table, Tables
from vitarium.studies.report.text import DASH, Interval, Quantity, cell, number, with_interval
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate

ESTIMATE = Estimate(0.9412, 0.93, 0.952)
NONE = Estimate(math.nan, None, None)


def test_numbers_are_shown_in_their_unit():
    assert number(0.9412, "fraction") == "94.1\xa0%"
    assert number(-0.01, "gain") == "\u22121.0\xa0%"
    assert number(0.01, "gain") == "+1.0\xa0%"
    assert number(0.624, "share") == "62\xa0%"
    assert number(0.9996, "sure") == "99.9\xa0%"
    assert number(1.0, "sure") == "100.0\xa0%"
    assert number(0.0001, "p") == "< 0.001"
    assert number(12345.6) == "1.23e+04"
    assert cell("0123456789ab", "id") == "01234567"


def test_what_has_no_value_is_a_dash():
    """A share of a barrier of nought is no number."""
    assert {number(math.nan, unit) for unit in ("share", "fraction", "")} == {DASH}
    assert cell(NONE, "share") == f"{DASH} {DASH}"
    assert with_interval(NONE, "share") == f"**{DASH}** (too few models for an interval)"
    assert cell(None) == DASH


def test_estimates_have_their_interval():
    assert cell(ESTIMATE, "fraction") == "94.1\xa0% [93.0, 95.2]"
    assert cell(Interval(ESTIMATE), "fraction") == "[93.0, 95.2]"
    assert cell(Quantity(ESTIMATE, "share")) == "94\xa0% [93, 95]"
    assert with_interval(ESTIMATE) == "**0.941** (95\xa0% CI 0.930 to 0.952)"
    narrow = Bootstrap(100, confidence_level=0.9).mean(np.arange(9.0))
    assert "(90\xa0% CI" in with_interval(narrow)


def test_a_frame_has_numbers_as_numbers():
    table = Table.of("T", [{"a": "x", "n": 3, "e": ESTIMATE}, {"a": "y", "n": None, "e": NONE}])
    assert table.rows[1] == ["y", DASH, f"{DASH} {DASH}"]
    assert table.rows[0][1] == "3"
    frame = table.frame
    assert list(frame) == ["a", "n", "e", "e low", "e high"]
    assert frame["e low"][0] == 0.93
    assert frame["n"].sum() == 3


def test_quantities_are_numbers_in_a_frame_too():
    rows = [{"q": Quantity(ESTIMATE, "fraction")}, {"q": Quantity(0.25, "")}]
    frame = Table.of("T", rows).frame
    assert frame["q"].tolist() == [0.9412, 0.25]
    assert frame["q low"][0] == 0.93


def test_tables_of_stages_are_one_and_empty_ones_are_left_out():
    def section(stage):
        contents = [Table.of("T", [{"n": 1}]), Table.of("E", []), None, Sentences([])]
        return Section(stage, stage, contents, stage=stage)

    tables = Tables("Page", [section("a"), section("b")])
    assert list(tables) == ["T"]
    assert tables["T"].to_dict("list") == {"stage": ["a", "b"], "n": [1, 1]}
    assert len(tables.sections[0].blocks) == 1


def test_data_frames_are_shown_as_they_are():
    frame = pd.DataFrame({"model": ["0123456789ab"], "accuracy": [0.5], "epochs": [3]})
    table = Table("T", frame, units={"model": "id", "accuracy": "fraction"})
    assert table.rows == [["01234567", "50.0\xa0%", "3"]]
    assert table.frame.to_dict() == frame.to_dict()


def test_a_list_in_a_cell_is_written_entry_by_entry():
    assert cell(["3f2a0c41@5", 0.25]) == "3f2a0c41@5, 0.250"
    assert cell(Quantity(0.25, "sure")) != "0.250, sure"
