"""A page is one file, and what is in it stays text."""

import json
import re

import altair as alt
import pandas as pd
import pytest

from vitarium.studies.report.figures import Figure, data
from vitarium.studies.report.page import html as page_of
from vitarium.studies.report.page import in_script, strong
from vitarium.studies.report.tables import Section, Sentences, Table, Tables

EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def html() -> str:
    chart = alt.Chart(data([{"x": 1, "name": EVIL}])).mark_point().encode(x="x:Q")
    blocks = [
        Sentences(["**91 %** of models, see `vitarium measure`", EVIL]),
        Table("Numbers", pd.DataFrame({"model": ["a", EVIL], EVIL: ["1", "2"]})),
        Figure("one", "One", "first", chart),
        Figure("two", "Two", "second", chart),
    ]
    return page_of(Tables("Study of " + EVIL, [Section("part", "A part", blocks)], "lead"))


def test_nothing_in_a_zoo_becomes_code(html):
    assert EVIL not in html
    assert html.count("<script") == html.count("</script>") == 3


def test_it_asks_for_nothing_from_a_network(html):
    outside = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!#)([^"']+)""", re.sub(r"(?s)<script>.*?</script>", "", html)
    )
    assert outside == []
    assert "@import" not in html.partition("</style>")[0]


def test_the_library_is_there_once(html):
    assert html.count("window.vegaEmbed=") == 1


def test_every_figure_has_its_definition(html):
    specs = json.loads(re.search(r'(?s)id="specs">(.*?)</script>', html)[1])
    assert list(specs) == re.findall(r'data-figure="(.*?)"', html) == ["one", "two"]
    assert specs["one"]["mark"]["type"] == "point"


def test_anchors_and_files_of_figures_hold_no_name_as_it_is():
    chart = alt.Chart(data([{"x": "\x1b[31m"}])).mark_point().encode(x="x:N")
    names = ["../../x-methods", "Base", "base", "plain"]
    figures = [Figure(name, "T", "c", chart) for name in names]
    page = Tables("t", [Section('stage-a "b"\x1b', "A", figures)])
    html = page_of(page)
    anchors = re.findall(r'(?:id|href)="#?(stage-.*?)"', html)
    assert anchors == ["stage-a%20%22b%22%5Cx1b"] * 2
    drawn = re.findall(r'data-figure="(.*?)"', html)
    assert drawn[0].startswith("_.._.._x-methods~")
    assert drawn[3] == "plain"
    assert len({name.lower() for name in drawn}) == 4
    assert drawn == list(page.figure_names.values())
    assert "\x1b" not in html


def test_half_a_surrogate_pair_stops_no_page():
    half = "half \ud83d"
    blocks = [Sentences([half]), Table.of("T", [{half: half}])]
    page = Tables(half, [Section(half, half, blocks)], half)
    assert page_of(page).encode().count(rb"half \ud83d") >= 5


def test_stars_and_ticks_are_the_only_marks():
    assert strong("a **b** `c` <i>") == "a <b>b</b> <code>c</code> &lt;i&gt;"


def test_json_in_a_script_is_the_same_json():
    value = {"a": EVIL, "b": "\u2028", "c": [1, None]}
    assert json.loads(in_script(value)) == value
    assert "<" not in in_script(value)


def test_a_page_without_figures_has_no_library():
    assert len(page_of(Tables("t", [Section("a", "A", [Sentences(["s"])])]))) < 20_000
