"""The map in a browser: positions by weights, lines through epochs, and a model's nearest relatives."""

import pytest
from playwright.sync_api import expect

from explorer.conftest import SCREENSHOTS, draw_around_all, files_served, served
from vitarium import export
from vitarium.encoders._runner.encode import kept_epochs
from vitarium.explorer import embeddings
from vitarium.explorer.security import Access

pytestmark = pytest.mark.slow

SECONDS = 90_000
"""Until the process beside the server has imported torch and encoded the zoo, with other tests running."""


@pytest.fixture
def map_page(page):
    page.get_by_role("button", name="Map").click()
    return page


def canvas(page, label):
    """The map, once it shows what this says."""
    drawn = page.get_by_label(label)
    expect(drawn).to_be_visible(timeout=SECONDS)
    return drawn


def test_models_lie_where_their_weights_do_and_the_address_says_so(map_page, zoo, browser):
    map_page.get_by_label("positions").select_option(label="weights")
    canvas(map_page, f"{len(zoo)} models by weights.")
    expect(map_page.locator(".hint")).to_contain_text("projected at random")
    expect(map_page.get_by_label("x axis")).to_have_count(0)
    map_page.get_by_label("method").select_option(label="t-SNE")
    canvas(map_page, f"{len(zoo)} models by weights.")
    draw_around_all(map_page)
    expect(map_page.get_by_label("Selection")).to_contain_text(f"{len(zoo)} selected")
    other = browser.new_page()
    other.goto(map_page.url)
    canvas(other, f"{len(zoo)} models by weights.")
    expect(other.get_by_label("method")).to_have_value("tsne")
    other.close()


def test_epochs_are_lines_through_what_is_kept(map_page, zoo):
    epochs_by_model = kept_epochs(zoo)
    several = sum(len(epochs) > 1 for epochs in epochs_by_model.values())
    assert several
    map_page.get_by_label("positions").select_option(label="weight statistics")
    map_page.get_by_label("epochs").check()
    canvas(map_page, f"{len(zoo)} models by weight statistics, {several} with a line")
    assert "epochs=1" in map_page.url


def test_an_epoch_on_a_line_is_named_where_the_pointer_is(map_page, zoo):
    map_page.get_by_label("x axis").select_option("last_epoch")
    map_page.get_by_label("y axis").select_option("val_accuracy")
    map_page.get_by_label("epochs").check()
    parent = next(model.id for model in zoo if model.children)
    map_page.get_by_label("SQL condition").fill(f"id = '{parent}'")
    map_page.get_by_label("SQL condition").press("Enter")
    box = canvas(map_page, "1 models by last_epoch and val_accuracy, 1 with a line").bounding_box()
    left, right = box["x"] + 56, box["x"] + box["width"] - 142
    top, bottom = box["y"] + 12, box["y"] + box["height"] - 44
    tooltip = map_page.locator(".tooltip strong")
    map_page.mouse.move((left + right) / 2, (top + bottom) / 2)  # epoch 1 of 0 to 2
    expect(tooltip).to_contain_text("after epoch 1")
    map_page.mouse.move(left + 24, bottom - 24)
    map_page.mouse.move(left + (right - left) * 0.04 / 1.08, bottom - (bottom - top) * 0.04 / 1.08)
    expect(tooltip).to_contain_text("after epoch 0")


def test_two_columns_have_epochs_where_both_are_metrics(map_page, zoo):
    map_page.get_by_label("x axis").select_option("optimizer.lr")
    expect(map_page.get_by_label("epochs")).to_be_disabled()
    trained = sum(len(zoo.epochs(id)) > 1 for id in zoo.ids())
    map_page.get_by_label("x axis").select_option("last_epoch")
    map_page.get_by_label("y axis").select_option("val_accuracy")
    map_page.get_by_label("epochs").check()
    canvas(map_page, f"{trained} with a line through their epochs")


def test_positions_by_predictions_and_what_cannot_be_shown(map_page, zoo, monkeypatch):
    monkeypatch.setattr(embeddings, "SECONDS", None)
    shown = embeddings.embedding(zoo.path, "predictions")
    map_page.get_by_label("positions").select_option(label="predictions")
    canvas(map_page, f"{len(shown['ids'])} models by predictions.")
    map_page.evaluate("location.hash = '#view=map&from=other'")
    unknown = map_page.locator(".hint", has_text="unknown weight_encoder 'other'")
    expect(unknown).to_be_visible(timeout=SECONDS)


def test_the_nearest_relatives_of_a_model_are_named_and_linked(page, zoo, monkeypatch):
    child = next(model for model in zoo if model.parent)
    monkeypatch.setattr(embeddings, "SECONDS", None)
    near = embeddings.relatives(zoo.path, child.id)["nearest"]
    page.goto(f"{page.url}#model={child.id}")
    page.reload()
    page.get_by_text("Nearest relatives").click()
    rows = page.locator("details tbody tr")
    expect(rows).to_have_count(len(near), timeout=SECONDS)
    for number, each in enumerate(near):
        expect(rows.nth(number)).to_contain_text(each["id"][:8])
    expect(rows.filter(has_text=child.parent.id[:8])).to_contain_text("parent")
    rows.first.get_by_role("button").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(near[0]["id"])


@pytest.mark.parametrize("has_embeddings", [True, False])
def test_an_exported_site_has_them_without_a_server(browser, zoo, tmp_path, has_embeddings):
    export(zoo, "site", out=tmp_path / "site", embeddings=has_embeddings)
    with files_served(tmp_path / "site") as address:
        page, problems = browser.new_page(), []
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.goto(f"{address}#view=map")
        expect(page.get_by_label("x axis")).to_be_visible()
        if has_embeddings:
            page.get_by_label("positions").select_option(label="weights")
            canvas(page, f"{len(zoo)} models by weights.")
            expect(page.get_by_label("epochs")).to_be_disabled()
            expect(page.get_by_label("method")).to_have_count(0)
            page.goto(f"{address}#model={zoo.ids()[0]}")
            page.reload()
            page.get_by_text("Nearest relatives").click()
            expect(page.locator("details tbody tr").first).to_be_visible()
        else:
            expect(page.get_by_label("positions")).to_have_count(0)
            page.goto(f"{address}#model={zoo.ids()[0]}")
            page.reload()
            expect(page.get_by_role("heading", level=2)).to_be_visible()
            expect(page.get_by_text("Nearest relatives")).to_have_count(0)
        page.close()
        assert problems == []


def test_it_fits_a_phone_in_the_dark(browser, zoo):
    with served(zoo, Access("127.0.0.1")) as address:
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page = context.new_page()
        page.goto(f"{address}#view=map&from=random_projection&epochs=1")
        canvas(page, f"{len(zoo)} models by weights,")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "phone-map-of-weights.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        context.close()
