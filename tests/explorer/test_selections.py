"""Selections have names that SQL knows, and become commands that run, whatever the zoo is called."""

import csv
import io
import subprocess

import pytest
import typer
from playwright.sync_api import expect

from explorer.conftest import HOSTILE, files_served, served
from vitarium import Blueprint, Zoo, cli, export, plan
from vitarium.core import registry
from vitarium.explorer.security import MAX_BODY, Access
from vitarium.zoo import About
from vitarium.zoo.listing import select

STRANGE = 'it\'s "a" zoo; $(touch x) `y` \\ \u202e\n*'


def test_one_request_names_many_models(change, kept_zoo):
    ids = kept_zoo.ids()
    names = [id[:6] for id in ids[:3]]
    status, answer = change("/api/tags", tag="best of 2", models=names)
    assert (status, sorted(answer["ids"])) == (200, sorted(ids[:3]))
    named = select(kept_zoo, where="list_contains(string_split(tags, ', '), 'best of 2')")
    assert sorted(named) == sorted(ids[:3])
    status, answer = change("/api/tags", tag="best of 2", models=ids[:1], remove=True)
    assert (status, answer["ids"]) == (200, ids[:1])
    assert [id for id in ids if kept_zoo[id].tags] == ids[1:3]


def test_a_name_that_is_none_is_refused(change, kept_zoo):
    ids = kept_zoo.ids()
    status, answer = change("/api/tags", tag="a, b", models=ids)
    assert (status, "a tag has no comma" in answer["error"]) == (400, True)
    assert change("/api/tags", tag="", models=ids)[0] == 400
    assert change("/api/tags", tag="x", models=["zzz", *ids])[0] == 404
    assert change("/api/tags", tag="x", models=[])[0] == 422
    assert change("/api/tags", tag="x", models=ids, remove="no")[0] == 422
    assert all(not model.tags for model in kept_zoo)


def test_a_request_has_room_for_the_ids_of_a_large_zoo(change):
    models = [f"{number:012x}" for number in range(10_000)]
    assert change("/api/tags", tag="x", models=models)[0] == 404  # it was read
    assert len(str(models)) < MAX_BODY / 5


def open_page(browser, address, **more):
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
        **more,
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("tbody .link")
    return page


def command_lines(page):
    """Every line that is offered, in every variant."""
    lines = []
    for item in page.locator(".commands li").all():
        select_box = item.locator("select")
        variants = select_box.locator("option").all_inner_texts() if select_box.count() else [None]
        for variant in variants:
            if variant:
                select_box.select_option(variant)
            lines.append(item.locator("code").text_content())
    return [line for line in lines if line.startswith("vitarium ")]


def split_by_bash(line, folder):
    """The arguments of `vitarium` as bash has them."""
    script = f"vitarium() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    ran = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, check=True)
    assert not ran.stderr
    assert not [*folder.iterdir()]  # nothing of a name was run
    return ran.stdout.decode().split("\0")[:-1]


def check_parsed(arguments):
    """As the command line reads them, without running anything."""
    command, context = typer.main.get_command(cli.app), None
    while hasattr(command, "get_command"):
        context = typer.Context(command, parent=context)
        name, *arguments = arguments
        command = command.get_command(context, name)
    return command.make_context(name, arguments, parent=context).params


@pytest.fixture
def run(monkeypatch):
    """Run a command line in this process."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["vitarium", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code

    return command


@pytest.mark.slow
def test_commands_for_a_selection_run(browser, grown_zoo, tmp_path, monkeypatch, run, capsys):
    zoo = Zoo.open(grown_zoo.path.rename(tmp_path / STRANGE))
    first, second = next(model for model in zoo if model.children).children
    empty = tmp_path / "empty"
    empty.mkdir()
    with served(zoo, Access("127.0.0.1")) as address:
        page = open_page(browser, f"{address}#selected={first.id}~{second.id}")
        page.get_by_text("At the command line").click()
        lines = command_lines(page)
        page.locator(".commands li").first.get_by_role("button").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator(".commands li code").first.text_content()
        page.context.close()
    parsed = [split_by_bash(line, empty) for line in lines]
    kinds = {"merge": "operator", "measure": "measure", "export": "exporter"}
    options = {"merge": "method", "measure": "names", "export": "exporter"}
    for arguments in parsed:
        params = check_parsed(arguments)
        assert str(params["directory"]) == str(zoo.path)
        if name := params.get(options.get(arguments[0], "")):
            registry.get(kinds[arguments[0]], name[0] if isinstance(name, list) else name)
        if "models" in params:
            assert params["models"] == [first.id, second.id]
    commands = {arguments[0] for arguments in parsed}
    assert commands == {"measure", "merge", "compress", "study", "export", "archive", "query"}
    monkeypatch.chdir(tmp_path)
    for name in ("measure", "merge", "export", "archive", "query", "study"):
        run(*next(arguments for arguments in parsed if arguments[0] == name))
    printed = capsys.readouterr().out
    assert first.id[:8] in printed
    assert {path.name for path in tmp_path.iterdir()} >= {"selection-timm", "selection-zoo"}
    assert {*Zoo.open("selection-zoo").ids()} == {first.id, second.id, first.parent.id}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """44 models that nobody trained: more than a command line lists."""
    zoo = Zoo.create(tmp_path_factory.mktemp("many") / "zoo")
    blueprint = {
        "name": "many",
        "stages": {
            "pretrain": {
                "architecture": {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1},
                "data": "digits",
                "epochs": 1,
                "batch_size": 32,
                "grid": {"seed": list(range(22)), "optimizer.lr": [0.1, 0.01]},
            }
        },
    }
    for spec in plan(Blueprint.read(blueprint)).models:
        folder = zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        folder.commit(0, {"test_accuracy": 0.5}, None, None)
        folder.finish("finished")
    return zoo


def where_of(page, folder):
    """The condition in the command `measure`."""
    line = page.locator(".commands li code").first.text_content()
    _, _, _, flag, condition = split_by_bash(line, folder)
    assert flag == "--where"
    return condition


@pytest.mark.slow
def test_large_selections_are_said_by_a_condition(browser, many, tmp_path):
    with served(many, Access("127.0.0.1")) as address:
        page = open_page(browser, address)
        page.get_by_label("Select all").check()
        page.get_by_text("At the command line").click()
        assert select(many, where=where_of(page, tmp_path)) == select(many)
        page.get_by_role("button", name="Clear").click()
        page.get_by_label("SQL condition", exact=True).fill("seed < 11 AND lr > 0")
        page.get_by_label("SQL condition", exact=True).press("Enter")
        expect(page.locator("output")).to_have_text("22 of 44 models")
        page.get_by_label("Select all").check()
        page.get_by_text("At the command line").click()
        assert where_of(page, tmp_path) == "seed < 11 AND lr > 0"
        page.get_by_label("SQL condition", exact=True).fill("")
        page.get_by_label("SQL condition", exact=True).press("Enter")
        expect(page.get_by_text("More than 20 models are not listed")).to_be_visible()
        assert page.locator(".commands li").count() == 0
        assert page.get_by_role("button", name="Copy SQL condition").is_disabled()
        page.get_by_label("New name").fill('it\'s % "fine"')
        page.get_by_role("button", name="Save name", exact=True).click()
        expect(page.locator(".selection .chip", has_text="fine")).to_be_visible(timeout=180_000)
        condition = where_of(page, tmp_path)
        assert sorted(select(many, where=condition)) == sorted(
            model.id for model in many if model.factors["seed"] < 11
        )
        query = page.locator(".commands li", has_text="SQL").last.locator("code").text_content()
        assert len(many.query(query)) == 22
        page.context.close()


@pytest.mark.slow
def test_a_name_is_chosen_and_removed(page, zoo):
    chosen = zoo.ids()[:2]
    for id in chosen:
        page.get_by_label(f"Select {id[:8]}").check()
    page.get_by_label("New name").fill(HOSTILE)
    expect(page.get_by_text("1 model has this name already")).to_be_visible()
    page.get_by_label("New name").fill("the, two")
    page.get_by_role("button", name="Save name", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("a tag has no comma")
    page.get_by_label("New name").fill("the two")
    page.get_by_role("button", name="Save name", exact=True).click()
    expect(page.get_by_label("Remove the name the two")).to_be_visible()
    assert [id for id in zoo.ids() if "the two" in zoo[id].tags] == chosen
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("2 selected")).to_have_count(0)
    page.get_by_label("Select by name").select_option("the two")
    expect(page.get_by_label("Selection")).to_contain_text("2 selected")
    for id in chosen:
        expect(page.get_by_label(f"Select {id[:8]}")).to_be_checked()
    page.get_by_label("Remove the name the two").click()
    expect(page.get_by_label("Remove the name the two")).to_have_count(0)
    assert all("the two" not in model.tags for model in zoo)


@pytest.mark.slow
def test_a_selection_is_saved_as_a_table(page, zoo):
    chosen = zoo.ids()[:3]
    for id in chosen:
        page.get_by_label(f"Select {id[:8]}").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "zoo.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert sorted(row["id"] for row in rows) == chosen
    models = zoo.models().set_index("id")
    for row in rows:
        tags = models["tags"][row["id"]]
        assert row["tags"] == (tags if isinstance(tags, str) else "")
        assert float(row["alpha"]) == pytest.approx(models["alpha"][row["id"]])


def selected_rows(page):
    return [
        position
        for position, row in enumerate(page.locator("tbody tr[aria-rowindex]").all())
        if row.locator("input").is_checked()
    ]


@pytest.mark.slow
def test_ranges_are_selected_by_mouse(page):
    rows = page.locator("tbody tr[aria-rowindex]")
    rows.nth(1).locator("input").click()
    rows.nth(4).locator("input").click(modifiers=["Shift"])
    assert selected_rows(page) == [1, 2, 3, 4]
    rows.nth(3).locator("input").click()
    rows.nth(2).locator("input").click(modifiers=["Shift"])  # as the last one: not selected
    assert selected_rows(page) == [1, 4]
    rows.nth(6).locator("td").nth(2).click(modifiers=["ControlOrMeta"])
    rows.nth(5).locator("td").nth(2).click(modifiers=["Shift"])
    assert selected_rows(page) == [1, 4, 5, 6]
    rows.nth(0).locator("td").nth(2).click()  # without a key, a row is only where keys start
    assert selected_rows(page) == [1, 4, 5, 6]
    expect(page.get_by_label("Selection")).to_contain_text("4 selected")


@pytest.mark.slow
def test_ranges_are_selected_by_keyboard(page, zoo):
    listed = [row["model"] for row in listing_of(zoo)]
    page.get_by_role("region", name="Models").focus()
    for key, rows in {
        "Space": [0],
        "ArrowDown": [0],
        "Shift+ArrowDown": [0, 1, 2],
        "Shift+Space": [0, 1, 2],
        "Escape": [],
        "End": [],
        "Space ": [6],
        "Shift+Home": [0, 1, 2, 3, 4, 5, 6],
        "Escape ": [],
        "ControlOrMeta+a": [0, 1, 2, 3, 4, 5, 6],
        "Escape  ": [],
        "Home": [],
        "Space  ": [0],
        "ArrowDown ": [0],
        "ArrowDown  ": [0],
        "Shift+Space ": [0, 1, 2],
    }.items():
        page.keyboard.press(key.strip())
        assert selected_rows(page) == rows, key
    assert page.evaluate("document.activeElement.ariaLabel") == f"Select {listed[2][:8]}"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_contain_text(listed[2])


@pytest.mark.slow
def test_keys_reach_rows_that_are_not_drawn_yet(browser, many):
    with served(many, Access("127.0.0.1")) as address:
        page = open_page(browser, address)
        page.set_viewport_size({"width": 1280, "height": 400})
        last = listing_of(many)[-1]["model"]
        page.get_by_role("region", name="Models").focus()
        page.keyboard.press("End")
        expect(page.get_by_label(f"Select {last[:8]}")).to_be_focused()
        page.keyboard.press("Shift+PageUp")
        page.keyboard.press("Shift+Home")
        expect(page.get_by_label("Selection")).to_contain_text("44 selected")
        page.context.close()


def listing_of(zoo):
    from vitarium.zoo.listing import listing

    return listing(zoo.path).rows


@pytest.mark.slow
def test_names_are_chosen_in_a_site_without_a_server(browser, zoo, tmp_path):
    zoo.tag(zoo.ids()[:2], "two")
    export(zoo, "site", out=tmp_path / "site")
    with files_served(tmp_path / "site") as address:
        page = open_page(browser, address)
        page.get_by_label("Select by name").select_option("two")
        expect(page.get_by_label("Selection")).to_contain_text("2 selected")
        expect(page.get_by_label("New name")).to_have_count(0)
        page.get_by_text("At the command line").click()
        line = page.locator(".commands li code").first.text_content()
        assert line.startswith("vitarium measure zoo accuracy ")
        assert str(zoo.path.parent) not in page.content()
        page.context.close()
