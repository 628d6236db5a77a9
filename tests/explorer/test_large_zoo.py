"""Every view of a zoo of thousands of models: what is shown is right, and all of it can be reached."""

import pytest
from listing import write_zoo
from playwright.sync_api import expect

from explorer.conftest import SCREENSHOTS, draw_around_all, served
from vitarium import Zoo
from vitarium.explorer.security import Access
from vitarium.zoo.listing import listing, select

pytestmark = pytest.mark.slow
MODELS = 4_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "zoo"
    write_zoo(folder, MODELS)
    return Zoo.open(folder)


@pytest.fixture(scope="module")
def opened(browser, large):
    """The page, which all tests of this file go on with."""
    with served(large, Access("127.0.0.1")) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("tbody .link")
        yield page
        page.close()


@pytest.fixture
def page(opened):
    if opened.get_by_role("button", name="Clear", exact=True).count():
        opened.get_by_role("button", name="Clear", exact=True).click()
    return opened


def visit(page, view):
    page.get_by_role("button", name=view, exact=True).first.click()


def shown(page, view):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"large-{view}.png")


def test_the_table_has_its_first_and_last_rows(page, large):
    visit(page, "Table")
    expect(page.locator("output")).to_have_text(f"{MODELS:,} models")
    page.get_by_role("button", name="after", exact=True).click()
    rows = listing(large.path, columns=["after"], sort=["-after"]).rows
    first = page.locator("tbody tr:not([aria-hidden])").first
    expect(first.locator("td").last).to_have_text(f"{rows[0]['after']:.4g}")
    page.get_by_role("region", name="Models").evaluate("region => region.scrollTop = 1e9")
    expect(page.locator(f"tr[aria-rowindex='{MODELS + 1}']")).to_be_visible()
    assert page.locator("tbody tr").count() < 100
    shown(page, "table")
    page.get_by_role("region", name="Models").evaluate("region => region.scrollTop = 0")


def test_a_condition_and_words_choose_models(page, large):
    visit(page, "Table")
    where = 'after > 0.9 AND "optimizer.lr" < 0.01'
    expected = len(select(large, where=where))
    assert 0 < expected < MODELS
    field = page.get_by_label("SQL condition")
    field.fill(where)
    field.press("Enter")
    expect(page.locator("output")).to_have_text(f"{expected:,} of {MODELS:,} models")
    field.fill("")
    field.press("Enter")
    expect(page.locator("output")).to_have_text(f"{MODELS:,} models")


def test_a_lasso_around_all_points_selects_all_that_have_both_numbers(page, large):
    visit(page, "Map")
    page.get_by_label("x axis").select_option("optimizer.lr")
    page.get_by_label("y axis").select_option("after")
    draw_around_all(page)
    expected = len(select(large, where='"optimizer.lr" IS NOT NULL AND after IS NOT NULL'))
    expect(page.get_by_label("Selection")).to_contain_text(f"{expected:,} selected")
    shown(page, "map")


def test_a_brush_selects_on_an_axis_of_factors(page, large):
    visit(page, "Factors")
    title = page.locator("text.axis-title", has_text="after").bounding_box()
    box = page.locator(".map svg").bounding_box()
    x = title["x"] + title["width"] / 2
    page.mouse.move(x, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    expect(page.get_by_label("Selection")).to_contain_text("selected")
    shown(page, "factors")


def test_the_tree_opens_roots_and_scrolls(page, large):
    visit(page, "Tree")
    expect(page.locator(".node").first).to_be_visible()
    sql = "SELECT parent, id FROM models WHERE parent IS NOT NULL ORDER BY parent, id LIMIT 1"
    root, child = large.query(sql).iloc[0]
    fold = page.get_by_label(f"Children of {root[:8]}")
    fold.click()
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_role("button", name=child[:8]).first).to_be_visible()
    assert page.locator(".node").count() < 100
    shown(page, "tree")


def test_models_are_compared_and_looked_at(page, large):
    visit(page, "Table")
    boxes = page.locator("tbody input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    visit(page, "Compare")
    expect(page.get_by_role("region", name="Differences")).to_be_visible()
    shown(page, "compare")
    id = large.ids()[-1]
    page.goto(page.url.partition("#")[0] + f"#model={id}")
    page.reload()
    expect(page.get_by_role("heading", level=2)).to_contain_text(id)
    shown(page, "model")
