"""The page in a browser: every view on a zoo, and what a reader does there."""

import itertools
import re
import shutil

import pytest
from playwright.sync_api import Page, expect

from explorer.conftest import HOSTILE, SCREENSHOTS, draw_around_all, files_served, served
from vitarium import export, grow
from vitarium.core import files
from vitarium.explorer.security import Access
from vitarium.zoo.listing import listing

pytestmark = pytest.mark.slow


def ids_in(page: Page) -> list[str]:
    return page.locator("tbody .link").all_inner_texts()


def ids_in_when_shown(page: Page) -> list[str]:
    page.wait_for_selector("tbody .link")
    return ids_in(page)


def test_the_table_lists_sorts_searches_and_filters(page, zoo):
    assert ids_in(page) == [row["model"][:8] for row in listing(zoo.path).rows]
    page.get_by_role("button", name="lr", exact=True).click()
    by_lr = [row["model"][:8] for row in listing(zoo.path, sort=["-lr"]).rows]
    with_lr = [row["model"][:8] for row in listing(zoo.path, where="lr IS NOT NULL").rows]
    assert {*ids_in(page)[: len(with_lr)]} == {*by_lr[: len(with_lr)]}
    page.get_by_label("Search").fill("finetune")
    expect(page.locator("output")).to_have_text(f"4 of {len(zoo)} models")
    page.get_by_label("Search").fill("")
    page.get_by_label("SQL condition").fill("parent IS NULL AND operator IS NULL")
    page.get_by_label("SQL condition").press("Enter")
    expect(page.locator("output")).to_have_text(f"2 of {len(zoo)} models")
    page.get_by_label("SQL condition").fill("lrr < 1")
    page.get_by_label("SQL condition").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("did you mean")


def test_columns_are_chosen(page):
    headings = page.locator("thead th").all_inner_texts()
    assert "alpha" not in headings
    page.get_by_text("Columns (").click()
    page.get_by_label("alpha", exact=True).check()
    expect(page.locator("thead")).to_contain_text("alpha")


def test_columns_are_put_in_order_by_keyboard_and_by_mouse(page, address, browser):
    headings = page.locator("thead th")
    before = headings.all_inner_texts()
    first, second, third = before[2:5]
    page.get_by_text("Columns (").click()
    button = page.get_by_role("button", name=f"Move {first} right")
    button.focus()
    page.keyboard.press("Enter")
    expect(headings).to_have_text([*before[:2], second, first, *before[4:]])
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(headings).to_have_text([*before[:2], second, third, first, *before[5:]])
    page.get_by_role("button", name=f"Move {second} left").click()  # it is the first already
    other = browser.new_page()
    other.goto(page.url)
    expect(other.locator("thead th")).to_have_text([*before[:2], second, third, first, *before[5:]])
    other.close()
    headings.nth(4).drag_to(headings.nth(2))
    expect(headings).to_have_text(before)


def test_a_link_brings_back_what_was_looked_at(page, address, browser):
    page.get_by_label("Search").fill("finetune")
    page.get_by_label("Select all").check()
    page.get_by_role("button", name="Tree").click()
    expect(page.get_by_role("region", name="Lineage")).to_be_visible()
    other = browser.new_page()
    other.goto(page.url)
    expect(other.get_by_role("region", name="Lineage")).to_be_visible()
    expect(other.get_by_label("Search")).to_have_value("finetune")
    expect(other.get_by_label("Selection")).to_contain_text("4 selected")
    other.close()
    page.go_back()
    expect(page.get_by_role("region", name="Models")).to_be_visible()


def test_a_model_has_a_page_where_words_are_written(page, zoo):
    child = next(model for model in zoo if model.parent)
    page.get_by_role("button", name=child.id[:8]).first.click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(child.id)
    page.get_by_label("New tag").fill("best")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("button", name="Remove tag best")).to_be_visible()
    page.get_by_label("Note").fill("two\nlines")
    page.get_by_role("button", name="Save note").click()
    expect(page.get_by_role("button", name="Save note")).to_be_disabled()
    assert (zoo[child.id].tags, zoo[child.id].note) == (("best",), "two\nlines")
    page.get_by_role("button", name=f"{child.parent.id[:8]} after epoch").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(child.parent.id)
    page.go_back()
    expect(page.get_by_role("heading", level=2)).to_contain_text(child.id)


def test_names_are_data_and_never_markup(page, zoo):
    hostile = next(model for model in zoo if model.tags)
    page.get_by_role("button", name=hostile.id[:8]).first.click()
    expect(page.locator("article .chip", has_text=HOSTILE)).to_be_visible()
    expect(page.get_by_label("Select by name").get_by_text(HOSTILE)).to_have_count(1)
    assert page.locator("img[src='x']").count() == 0


def test_a_lasso_on_the_map_selects_models(page, zoo):
    page.get_by_role("button", name="Map").click()
    page.get_by_label("x axis").select_option("optimizer.lr")
    page.get_by_label("y axis").select_option("alpha")
    draw_around_all(page)
    grown = sum(model.factors.get("optimizer.lr") is not None for model in zoo)
    expect(page.get_by_label("Selection")).to_contain_text(f"{grown} selected")


def test_brushing_an_axis_selects_models(page, zoo):
    page.get_by_role("button", name="Factors").click()
    axis = page.locator("text.axis-title", has_text="stage")
    box, svg = axis.bounding_box(), page.locator(".map svg").bounding_box()
    x, tick = box["x"] + box["width"] / 2, page.locator("text.tick", has_text="finetune")
    y = tick.bounding_box()["y"] + 8
    page.mouse.move(x, y - 20)
    page.mouse.down()
    page.mouse.move(x, y + 20, steps=4)
    page.mouse.up()
    assert svg["height"] > 100
    expect(page.get_by_label("Selection")).to_contain_text("4 selected")


def test_models_without_a_value_are_at_the_foot_of_its_axis(page, zoo):
    """A brush there selects the soup, which has no learning rate of its own."""
    page.get_by_role("button", name="Factors").click()
    title = page.locator("text.axis-title").get_by_text("lr", exact=True).bounding_box()
    x, svg = title["x"] + title["width"] / 2, page.locator(".map svg").bounding_box()
    foot = svg["y"] + svg["height"] - 20
    page.mouse.move(x, foot + 5)
    page.mouse.down()
    page.mouse.move(x, foot - 5, steps=4)
    page.mouse.up()
    expect(page.get_by_label("Selection")).to_contain_text("1 selected")
    soup = next(model for model in zoo if model.ingredients)
    expect(page.get_by_label("Selection")).to_contain_text(soup.id[:8])


def test_axes_of_factors_are_legible_on_a_phone(page):
    """They are far enough from each other, and a brush still holds what it chose when the bar of
    the selection takes some of their length."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Factors").click()
    titles = page.locator("text.axis-title")
    boxes = [title.bounding_box() for title in titles.all()]
    centers = [box["x"] + box["width"] / 2 for box in boxes]
    assert all(right - left > 75 for left, right in itertools.pairwise(centers))
    height = page.locator(".map svg").bounding_box()["height"]
    tick = page.locator("text.tick", has_text="finetune").bounding_box()
    y = tick["y"] + tick["height"] / 2
    page.mouse.move(centers[0], y - 5)
    page.mouse.down()
    page.mouse.move(centers[0], y + 5, steps=4)
    page.mouse.up()
    expect(page.get_by_label("Selection")).to_contain_text("4 selected")
    assert page.locator(".map svg").bounding_box()["height"] < height
    expect(page.get_by_text("pass there: 4 of 7")).to_be_visible()


def test_the_tree_shows_families_and_several_parents(page, zoo):
    page.get_by_role("button", name="Tree").click()
    soup = next(model for model in zoo if model.ingredients)
    line = page.locator(".node", has_text=soup.id[:8]).last
    expect(line).to_contain_text(f"also of {soup.ingredients[1].model[:8]}")
    root = next(model for model in zoo if len(model.children) and not model.parent)
    page.get_by_label(f"Children of {root.id[:8]}").click()
    expect(page.get_by_role("button", name=root.children[0].id[:8])).to_have_count(0)


def test_models_are_compared(page, zoo):
    children = next(model for model in zoo if model.children).children
    for child in children:
        page.get_by_label(f"Select {child.id[:8]}").check()
    page.get_by_role("button", name="Compare").last.click()
    expect(page.get_by_role("region", name="Differences")).to_contain_text("optimizer")
    for child in children:
        expect(page.get_by_role("region", name="Differences")).to_contain_text(child.id[:8])


def test_tags_and_notes_are_shown_in_every_view(page, zoo):
    first, second = next(model for model in zoo if model.children).children[:2]
    zoo.tag(first.id, "chosen")
    zoo.note(second.id, "watch this one")
    row = page.locator("tbody tr", has_text="chosen")
    expect(row).to_contain_text(first.id[:8], timeout=15_000)
    page.goto(f"{page.url.partition('#')[0]}#view=compare&selected={first.id}~{second.id}")
    page.reload()
    differences = page.get_by_role("region", name="Differences")
    expect(differences).to_contain_text("chosen")
    expect(differences).to_contain_text("watch this one")
    page.get_by_role("button", name="Tree").click()
    expect(page.locator(".node", has_text="chosen")).to_contain_text(first.id[:8])
    expect(page.locator(".node", has_text="watch this one")).to_contain_text(second.id[:8])
    page.get_by_role("button", name="Map").click()
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    for _ in zoo:
        page.keyboard.press("ArrowLeft")
    tooltips = []
    for _ in zoo:
        tooltips.append(page.locator(".tooltip").inner_text())
        page.keyboard.press("ArrowRight")
    assert any("tags chosen" in text for text in tooltips)
    assert any("note watch this one" in text for text in tooltips)


def test_a_zoo_that_grows_is_followed(page, zoo, tiny):
    chosen = zoo.ids()[0]
    page.get_by_label(f"Select {chosen[:8]}").check()
    before = zoo.ids()
    tiny["stages"]["pretrain"]["grid"]["seed"] = [3, 4]
    tiny["stages"]["pretrain"]["evaluate_on"] = {"v2": "mnist5k"}
    grow(tiny, zoo, workers=0, precision="fp32", compiled=False, stacked=1, stages=["pretrain"])
    assert len(zoo) == len(before) + 2
    expect(page.locator("output")).to_have_text(f"{len(before) + 2} models", timeout=15_000)
    expect(page.get_by_label("Selection")).to_contain_text(chosen[:8])
    added = next(id for id in zoo.ids() if id not in before)
    page.goto(f"{page.url.partition('#')[0]}#model={added}")
    for title in ("accuracy", "loss"):
        legend = page.get_by_role("figure").filter(has_text=title).locator("figcaption").first
        expect(legend).to_have_text(re.compile(r"\s*".join([title, "train", "val", "test", "v2"])))


def test_what_a_model_does_with_images_is_shown(browser, grown_zoo):
    with served(grown_zoo, Access("127.0.0.1")) as address:
        page = browser.new_page()
        page.goto(f"{address}#model={grown_zoo.ids()[0]}")
        expect(page.get_by_text("Errors of which it is surest")).to_be_visible(timeout=60_000)
        assert page.locator(".images img").count() > 0
        expect(page.locator(".images canvas").first).to_be_visible(timeout=60_000)
        page.get_by_label("block").select_option(index=1)
        page.get_by_label("head").select_option(index=1)
        drawn = "c => c.getContext('2d').getImageData(0, 0, 72, 72).data.some(v => v > 0)"
        assert page.locator(".images canvas").first.evaluate(drawn)
        first, second = next(model for model in grown_zoo if model.children).children[:2]
        page.goto(f"{address}#view=compare&selected={first.id}~{second.id}")
        page.reload()
        expect(page.get_by_text("Similarity of blocks")).to_be_visible(timeout=60_000)
        expect(page.locator(".heat td").first).to_be_visible()
        page.close()


def test_an_exported_site_is_the_page_without_a_server_of_ours(browser, zoo, tmp_path):
    shown = [model.id for model in zoo if not model.ingredients]
    export(zoo, "site", out=tmp_path / "site", models=shown)
    with files_served(tmp_path / "site") as address:
        page = browser.new_page()
        page.goto(address)
        assert {*ids_in_when_shown(page)} == {id[:8] for id in shown}
        expect(page.get_by_label("SQL condition")).to_have_count(0)
        expect(page.get_by_role("button", name="Live")).to_have_count(0)
        page.get_by_role("button", name=shown[0][:8]).first.click()
        expect(page.get_by_role("heading", level=2)).to_contain_text(shown[0])
        expect(page.get_by_label("New tag")).to_have_count(0)
        assert str(zoo.path) not in page.content()
        page.close()


def test_a_site_that_is_opened_from_a_folder_says_what_it_needs(browser, zoo, tmp_path):
    export(zoo, "site", out=tmp_path / "site", models=[zoo.ids()[0]])
    page = browser.new_page()
    page.goto((tmp_path / "site" / "index.html").as_uri())
    expect(page.get_by_text("python -m http.server")).to_be_visible()
    page.close()


@pytest.mark.parametrize("view", ["Table", "Map", "Factors", "Tree", "Compare", "Studies", "Live"])
def test_every_view_fits_a_phone_and_the_dark(browser, address, view):
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    page.get_by_role("button", name=view, exact=True).first.click()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"phone-{view.lower()}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert max(map(int, background[4:-1].split(","))) < 60
    context.close()


def test_a_condition_holds_for_its_models_when_others_take_their_rows(page, zoo):
    first = page.locator("tbody .link").first.inner_text()
    condition = page.get_by_label("SQL condition")
    condition.fill(f"id LIKE '{first}%'")
    condition.press("Enter")
    total = len(zoo)
    expect(page.locator("output")).to_have_text(f"1 of {total} models")
    shutil.rmtree(zoo.path / "models" / zoo.find(first))
    expect(page.locator("output")).to_have_text(f"0 of {total - 1} models", timeout=20_000)
    assert ids_in(page) == []
    condition.fill("lrr < 1")
    condition.press("Enter")
    expect(page.locator("output")).to_have_text(f"{total - 1} models")
    expect(page.get_by_role("alert")).to_contain_text("did you mean")


def test_classes_of_one_name_and_bins_of_one_confidence_are_all_shown(page, address, zoo):
    crane = {"name": "crane", "accuracy": 0.5, "images": 2}
    bins = {"confidence": 0.5, "accuracy": 0.5, "images": 2}
    answer = {
        "data": "birds",
        "images": 4,
        "accuracy": 0.5,
        "classes": [crane, crane],
        "calibration": [bins, bins],
        "errors": [],
    }
    page.route("**/behavior.json", lambda route: route.fulfill(json=answer))
    page.goto(f"{address}#model={zoo.ids()[0]}")
    expect(page.locator("dt", has_text="crane")).to_have_count(2)


def test_columns_with_the_separator_of_the_address_in_their_names_are_kept(page, zoo, browser):
    for id in zoo.ids():
        file = zoo.folder(id).path / "epochs.jsonl"
        lines = files.read_lines(file, sealed=True)
        for line in lines:
            line["metrics"] |= {"a~b": int(id[:2], 16), "a%7Eb": int(id[2:4], 16)}
        files.write_lines(file, lines)
    page.reload()
    page.get_by_text("Columns (").click()
    for name in ("a~b", "a%7Eb"):
        page.get_by_label(name, exact=True).check()
    other = browser.new_page()
    other.goto(page.url)
    for name in ("a~b", "a%7Eb"):
        expect(other.get_by_role("button", name=name, exact=True)).to_be_visible()
    other.close()
