"""Everybody can use the page: axe finds nothing serious in any view, light or dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from explorer.conftest import SCREENSHOTS, served
from vitarium.explorer.security import Access

pytestmark = pytest.mark.slow

READY = {
    "table": "tbody .link",
    "map": "canvas",
    "map&from=layer_quantiles": "[role=application][aria-label^='6 models by weight statistics']",
    "factors": "text.tick",
    "tree": ".node",
    "compare": ".heat td",
    "studies": ".none",
    "live": ".facts",
    "model": "h2 code",
}
"""Of each view, what is there once it is drawn."""


def serious_violations(page):
    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.fixture(scope="module")
def grown_address(grown):
    with served(grown, Access("127.0.0.1")) as address:
        yield address


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", READY)
def test_axe_finds_nothing_serious(browser, grown, grown_address, view, scheme):
    children = next(model for model in grown if model.children).children
    looked_at = {"model": f"model={children[0].id}"}.get(view, f"view={view}")
    selected = "~".join(child.id for child in children[:2])
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{grown_address}#{looked_at}&selected={selected}")
    page.wait_for_selector(READY[view], timeout=60_000)
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=60_000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{view}-{scheme}.png", full_page=True)
    assert serious_violations(page) == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_matrix_of_pairs(browser, grown, grown_address, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{grown_address}#view=compare&selected={'~'.join(grown.ids())}")
    page.wait_for_selector("[data-at]", timeout=180_000)
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=180_000)
    assert serious_violations(page) == []
    context.close()


def test_axe_would_find_an_image_without_a_text(page):
    assert serious_violations(page) == []
    page.evaluate("document.querySelector('main').append(new Image())")
    (violation,) = serious_violations(page)
    assert violation.startswith("image-alt")
