"""The page by keyboard alone: models are found, chosen, compared and opened."""

import pytest
from playwright.sync_api import expect

from vitarium.zoo.listing import listing

pytestmark = pytest.mark.slow


def focus(page, locator):
    """Presses Tab until this has the focus."""
    for _ in range(80):
        if locator.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("Tab does not lead there")


def test_models_are_chosen_and_compared(page, zoo):
    rows = [row["model"] for row in listing(zoo.path).rows]
    focus(page, page.get_by_role("region", name="Models"))
    for key in ("ArrowDown", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(page.get_by_label("Selection")).to_contain_text("2 selected")
    page.reload()
    focus(page, page.get_by_role("button", name="Compare", exact=True).first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Differences")).to_contain_text(rows[2][:8])


def test_a_column_sorts_and_a_model_opens(page):
    focus(page, page.get_by_role("button", name="lr", exact=True))
    page.keyboard.press("Enter")
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("lr")
    model = page.locator("tbody .link").first
    name = model.inner_text()
    focus(page, model)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_contain_text(name)


def test_arrow_keys_go_from_point_to_point(page, zoo):
    focus(page, page.get_by_role("button", name="Map", exact=True))
    page.keyboard.press("Enter")
    page.get_by_label("x axis").select_option("optimizer.lr")
    page.get_by_label("y axis").select_option("alpha")
    focus(page, page.get_by_role("application"))
    rates = zoo.models().set_index("id")["optimizer.lr"].dropna()
    page.keyboard.press("ArrowRight")
    for _ in rates:
        page.keyboard.press("ArrowLeft")
    names = []
    for _ in rates:  # from left to right, as far as it goes
        names.append(page.locator(".tooltip strong").inner_text())
        page.keyboard.press("ArrowRight")
    positions = [rates[zoo.find(name)] for name in names]
    assert positions[0] == min(rates)
    assert positions == sorted(positions)
    assert positions[-1] == max(rates)
    page.keyboard.press("Space")
    expect(page.get_by_label("Selection")).to_contain_text(names[-1])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_contain_text(zoo.find(names[-1]))
