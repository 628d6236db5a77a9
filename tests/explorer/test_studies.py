"""Studies in the page: they are shown, and one from elsewhere can do nothing."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from explorer.conftest import SCREENSHOTS, files_served, served
from explorer.test_accessibility import serious_violations
from vitarium import Zoo, export, recover, study
from vitarium.core.errors import CorruptFile
from vitarium.explorer.security import Access
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.files.forests import write_json
from vitarium.zoo import studies

TITLE = "A &amp; B: <b>bold</b>"
PAGE = f'<!doctype html><title>{TITLE}</title><meta name="vitarium-study" content="soups">'
CONTENT = "not to be read"
QUICK_SITE = {"embeddings": False, "behavior": False}


def write_page(zoo: Zoo, name: str, content: str = PAGE, *, written: int = 1_700_000_000) -> None:
    file = studies.page_path(zoo.path, name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    os.utime(file, (written, written))


def write_lineage(zoo: Zoo, *, wrong: int = 1) -> Forest:
    """The truth but for `wrong` models, which are recovered as roots."""
    ids = zoo.ids()
    truth = {id: tuple(filter(None, [zoo[id].parent and zoo[id].parent.id])) for id in ids}
    children = [id for id in ids if truth[id]]
    edges = [Edge(truth[child][0], child, 0.97) for child in children[wrong:]]
    roots = {id: 0.55 for id in ids if id not in children[wrong:]}
    others = {child: {"": 0.55, truth[child][0]: 0.4} for child in children[:wrong]}
    forest = Forest("descent", ids, [0] * len(ids), edges, roots, (), (), others)
    write_json(forest, studies.json_path(zoo.path, "lineage"), truth=truth)
    return forest


def test_pages_are_listed_with_title_study_and_date(client, kept_zoo):
    assert client.get("/api/studies.json").json() == {"pages": [], "lineages": []}
    write_page(kept_zoo, "old")
    write_page(kept_zoo, "new", "no title", written=1_800_000_000)
    write_lineage(kept_zoo)
    answer = client.get("/api/studies.json").json()
    assert answer["pages"] == [
        {"name": "new", "title": "new", "study": "", "date": "2027-01-15T08:00:00+00:00"},
        {"name": "old", "title": "A & B:", "study": "soups", "date": "2023-11-14T22:13:20+00:00"},
    ]
    assert [lineage["name"] for lineage in answer["lineages"]] == ["lineage"]
    response = client.get("/studies/old.html")
    assert (response.status_code, response.text) == (200, PAGE)


def test_the_title_of_a_real_page_is_read(kept_zoo, client):
    out = studies.page_path(kept_zoo.path, "diversity")
    study(kept_zoo, "diversity", out=out, measure_missing=False, n_resamples=20, embeddings=())
    (page,) = client.get("/api/studies.json").json()["pages"]
    assert (page["title"], page["study"]) == ("Diversity of zoo", "diversity")


def test_a_recovered_lineage_is_given_with_its_truth(kept_zoo, client):
    forest = recover(kept_zoo, "nearest_root").forest
    truth = {id: tuple(m.id for m in [kept_zoo[id].parent] if m) for id in kept_zoo.ids()}
    write_json(forest, studies.json_path(kept_zoo.path, "lineage"), truth=truth)
    answer = client.get("/api/lineages/lineage.json").json()
    assert answer["method"] == "nearest_root"
    for model in answer["models"]:
        parents = {parent["model"] for parent in model["parents"]}
        assert parents == {*forest.parents[model["model"]]}
        assert tuple(model["true_parents"]) == truth[model["model"]]
        is_right = parents == {*truth[model["model"]]}
        assert model["status"] in (("right",) if is_right else ("wrong", "tied"))


def test_a_corrupt_lineage_is_named(kept_zoo, client):
    write_lineage(kept_zoo)
    file = studies.json_path(kept_zoo.path, "lineage")
    file.write_text(file.read_text()[:-20])
    response = client.get("/api/lineages/lineage.json")
    assert response.status_code == 400
    assert str(file) in response.json()["error"]


def test_the_stamp_changes_with_studies(client, kept_zoo):
    def stamp():
        return client.get("/api/zoo.json").json()["stamp"]

    before = stamp()
    assert stamp() == before
    write_page(kept_zoo, "soups")
    assert stamp() != before


@pytest.mark.parametrize(
    "path",
    [
        "studies/../secret.html",
        "studies/..%2fsecret.html",
        "studies/%2e%2e/secret.html",
        "studies/%2e%2e%2fsecret.html",
        "studies/..%5csecret.html",
        "studies/%2fsecret.html",
        "studies//secret.html",
        "studies/link.html",
        "studies/.hidden.html",
        "studies/folder.html",
        "studies/pipe.html",
        "studies/note.txt",
        "studies/lineage.json",
        "studies/",
        "studies/%00.html",
        "api/lineages/..%2fzoo.json",
        "api/lineages/..%2f..%2fsecret.json",
        "api/lineages/other.json",
    ],
)
def test_nothing_but_pages_and_lineages_can_be_read(client, kept_zoo, path):
    write_page(kept_zoo, "page")
    folder = kept_zoo.path / studies.FOLDER
    for file in ("secret.html", "secret.json", "studies/.hidden.html", "studies/note.txt"):
        (kept_zoo.path / file).write_text(CONTENT)
    for name in ("lineage.json", "other.json"):
        (folder / name).write_text(f'"{CONTENT}"')
    (folder / "link.html").symlink_to(kept_zoo.path / "secret.html")
    (folder / "folder.html").mkdir()
    os.mkfifo(folder / "pipe.html")
    response = client.get(f"/{path}")
    assert response.status_code in (400, 404)
    assert CONTENT not in response.text


def test_a_page_has_no_rights_and_only_ours_frames_it(client, kept_zoo):
    write_page(kept_zoo, "page")
    for name in ("page", "nothing"):
        headers = client.get(f"/studies/{name}.html").headers
        policy = headers["content-security-policy"].split("; ")
        assert {"sandbox allow-scripts", "default-src 'none'", "frame-ancestors 'self'"} <= {
            *policy
        }
        assert not any("allow-same-origin" in part or "http" in part for part in policy)
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["x-content-type-options"] == "nosniff"
    for address in ("/", "/api/studies.json", "/studies"):
        headers = client.get(address).headers
        assert "sandbox" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "frame-src 'self'" in client.get("/").headers["content-security-policy"]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context
    context.close()


@pytest.fixture
def address(kept_zoo: Zoo) -> Iterator[str]:
    with served(kept_zoo, Access("127.0.0.1")) as address:
        yield address


def errors_of(page: Page) -> list[str]:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    return problems


def real_pages(zoo: Zoo) -> None:
    settings = {"measure_missing": False, "n_resamples": 20, "embeddings": ["pca"]}
    study(zoo, "diversity", out=studies.page_path(zoo.path, "diversity"), **settings)
    path = studies.json_path(zoo.path, "lineage")
    out = studies.page_path(zoo.path, "lineage")
    study(zoo, "lineage", out=out, exports={"json": path}, compare=[])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_real_pages_work_in_their_frame(browser, address, kept_zoo, scheme):
    real_pages(kept_zoo)
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    problems = errors_of(page)
    page.goto(f"{address}#view=studies&study=diversity")
    frame = page.frame_locator("iframe")
    expect(frame.locator("h1")).to_have_text("Diversity of zoo")
    expect(frame.locator("canvas").first).to_be_visible()
    ground = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)"
    assert (max(frame.locator("body").evaluate(ground)) < 60) == (scheme == "dark")
    assert frame.locator("body").evaluate("() => self.origin") == "null"
    page.get_by_role("button", name="Lineage of zoo").click()
    expect(frame.locator("h1")).to_have_text("Lineage of zoo")
    folded = frame.locator("details.table:not([open]) > summary")
    for table in folded.all():
        table.click()
    heading = frame.locator("th").first
    heading.click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    cells = frame.locator("table").first.locator("tbody tr td:first-child").all_inner_texts()
    assert cells == sorted(cells)
    expect(frame.locator("canvas").first).to_be_visible()
    expect(frame.locator(".vega-embed summary")).to_have_count(0)  # nothing can be saved there
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"studies-{scheme}.png")
    with context.expect_page() as opened:
        page.get_by_role("link", name="Lineage of zoo in a new tab").click()
    tab = opened.value
    expect(tab.locator("canvas").first).to_be_visible()
    assert tab.evaluate("self.origin") == "null"
    assert tab.evaluate("window.opener") is None
    context.close()
    assert problems == []


WAITS = "new Promise((done, fail) => {{ {} }})"
ATTEMPTS = {
    "models": 'fetch("/api/models.json").then((r) => r.text())',
    "token": 'fetch("/api/zoo.json").then((r) => r.text())',
    "elsewhere": 'fetch("SINK/fetch", {mode: "no-cors"}).then((r) => r.type)',
    "request": WAITS.format(
        'const r = new XMLHttpRequest(); r.open("GET", "/api/zoo.json");'
        "r.onload = () => done(r.responseText); r.onerror = fail; r.send();"
    ),
    "socket": WAITS.format(
        'const s = new WebSocket("WS/socket"); s.onopen = done; s.onerror = fail;'
    ),
    "events": WAITS.format(
        'const s = new EventSource("/api/zoo.json"); s.onopen = done; s.onerror = fail;'
    ),
    "script": WAITS.format(
        'const s = document.createElement("script"); s.src = "/explorer.js";'
        "s.onload = done; s.onerror = fail; document.head.append(s);"
    ),
    "image": WAITS.format(
        'const i = new Image(); i.src = "/icon.svg"; i.onload = done; i.onerror = fail;'
    ),
    "worker": WAITS.format(
        'const w = new Worker(URL.createObjectURL(new Blob(["postMessage(1)"])));'
        "w.onmessage = done; w.onerror = fail;"
    ),
    "module": 'import("/explorer.js")',
    "cookie": "document.cookie",
    "storage": "localStorage.length",
    "parent": "parent.document.title",
    "address": "parent.location.href",
    "variable": "top.document.forms",
    "navigation": '(() => { top.location = "SINK/top"; })()',
    "popup": '(() => { if (!open("SINK/popup")) throw "no"; })()',
    "frame": WAITS.format(
        'const f = document.createElement("iframe"); f.src = "/";'
        "f.onload = () => done(f.contentDocument.title); document.body.append(f);"
    ),
}
"""JavaScript that a page of someone else's may try; what gives a value has succeeded."""
HOSTILE = """<!doctype html><title>harmless</title><base href="SINK/"><body>
<meta http-equiv="refresh" content="30; url=SINK/refresh"><link rel="stylesheet" href="SINK/css">
<img src="SINK/img"><form id="f" action="SINK/form" target="_top"></form>
<a id="a" href="SINK/link" target="_top">x</a><script>
const attempts = {ATTEMPTS}, results = {};
(async () => {
  for (const [name, attempt] of Object.entries(attempts)) {
    const limit = new Promise((_, fail) => setTimeout(fail, 1000));
    try { results[name] = `got ${await Promise.race([attempt(), limit])}`; }
    catch (error) { results[name] = "refused"; }
  }
  navigator.sendBeacon("SINK/beacon"); alert("hello"); parent.postMessage("hello", "*");
  f.submit(); if (parent !== self) a.click();
  document.body.dataset.results = JSON.stringify(results);
})();
</script>"""


def hostile_page(sink: str, attempts: Mapping[str, str]) -> str:
    functions = ", ".join(f"{name}: async () => {code}" for name, code in attempts.items())
    page = HOSTILE.replace("{ATTEMPTS}", f"{{{functions}}}").replace("SINK", sink)
    return page.replace("WS/", sink.replace("http", "ws") + "/")


@contextmanager
def sink() -> Iterator[tuple[str, list[str]]]:
    """The address of another server, and the paths that were requested there."""
    requested_paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested_paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requested_paths
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_hostile_page_reads_nothing_and_leads_nowhere(context, kept_zoo, host):
    access, dialogs = Access(host), list[str]()
    with sink() as (elsewhere, requested_paths), served(kept_zoo, access) as address:
        write_page(kept_zoo, "hostile", hostile_page(elsewhere, ATTEMPTS))
        page = context.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(address if access.is_loopback else f"{address}?token={access.token}")
        page.get_by_role("button", name="Studies").click()
        body = page.frame_locator("iframe").locator("body[data-results]")
        expect(body).to_be_attached(timeout=60_000)
        results = json.loads(body.get_attribute("data-results") or "")
        assert results == dict.fromkeys(ATTEMPTS, "refused")
        body.evaluate(f"() => {{ location = '{elsewhere}/self'; }}")
        page.wait_for_timeout(1000)  # what is not refused would be there by then
        assert page.url.startswith(f"{address}#view=studies")
        expect(page.get_by_role("button", name="Studies")).to_be_visible()
        assert len(context.pages) == 1
        assert (dialogs, requested_paths) == ([], [])
        # in a tab of its own, which is its own top, it can but leave
        own = {"parent", "address", "variable", "navigation"}
        attempts = {name: code for name, code in ATTEMPTS.items() if name not in own}
        write_page(kept_zoo, "tab", hostile_page(elsewhere, attempts))
        page.goto(f"{address}studies/tab.html")
        body = page.locator("body[data-results]")
        expect(body).to_be_attached(timeout=60_000)
        results = json.loads(body.get_attribute("data-results") or "")
        assert results == dict.fromkeys(attempts, "refused")
        assert requested_paths == []


@pytest.mark.slow
def test_the_view_follows_the_zoo(context, address, kept_zoo):
    page = context.new_page()
    problems = errors_of(page)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address)
    page.get_by_role("button", name="Studies").click()
    expect(page.get_by_text("no studies yet")).to_be_visible()
    page.get_by_role("button", name="copy").click()
    assert (
        page.evaluate("navigator.clipboard.readText()")
        == f"vitarium study diversity {kept_zoo.path}"
    )
    write_page(kept_zoo, "old", "<title>Old</title><p>the old one")
    expect(page.get_by_role("button", name="Old")).to_be_visible(timeout=15_000)
    expect(page.frame_locator("iframe").get_by_text("the old one")).to_be_visible()
    write_page(kept_zoo, "new", "<title><i>New</title><p>the new one", written=1_800_000_000)
    expect(page.get_by_role("button", name="new")).to_be_visible(timeout=15_000)
    page.get_by_role("button", name="Old").click()
    expect(page.frame_locator("iframe").get_by_text("the old one")).to_be_visible()
    assert "study=old" in page.url
    write_page(kept_zoo, "old", "<title>Old</title><p>written again", written=1_900_000_000)
    again = page.frame_locator("iframe").get_by_text("written again")
    expect(again).to_be_visible(timeout=15_000)
    page.get_by_role("button", name="Table").click()
    page.go_back()
    expect(again).to_be_visible()
    assert problems == []


@pytest.mark.slow
def test_recovered_parents_are_beside_the_true_ones(context, address, kept_zoo):
    page = context.new_page()
    page.goto(f"{address}#view=tree")
    expect(page.get_by_role("region", name="Lineage")).to_be_visible()
    expect(page.get_by_label("recovered parents")).to_have_count(0)
    forest = write_lineage(kept_zoo, wrong=1)
    page.get_by_label("recovered parents").select_option("lineage", timeout=15_000)
    total = len(forest.models)
    expect(page.get_by_text(f"{total - 1} of {total} parents right")).to_be_visible()
    wrong = next(id for id in forest.candidates)
    expect(page.locator(".node", has_text=wrong[:8]).last).to_contain_text(
        "✗ recovered as a root 55 %"
    )
    expect(page.locator(".node", has_text="✗")).to_have_count(1)
    expect(page.locator(".node", has_text="true parent 40 %")).to_have_count(1)
    child = forest.edges[0].child
    expect(page.locator(".node", has_text=child[:8]).last).to_contain_text("✓")
    expect(page.locator(".node", has_text="97 %")).to_have_count(len(forest.edges))
    parent = kept_zoo[wrong].parent.id[:8]
    page.get_by_label(f"Children of {parent}").click()
    expect(page.locator(".node", has_text=parent).first).to_contain_text("✗ 1 below")
    page.get_by_label(f"Children of {parent}").click()
    page.get_by_role("button", name="Select the wrong one").click()
    expect(page.get_by_label("Selection")).to_contain_text(wrong[:8])
    page.reload()
    expect(page.get_by_text(f"{total - 1} of {total} parents right")).to_be_visible()
    studies.json_path(kept_zoo.path, "lineage").write_text("{")
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("studies/lineage.json", timeout=15_000)
    expect(page.locator(".node", has_text="✓")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_studies_and_recovered_parents_are_for_everybody(browser, address, kept_zoo, scheme):
    write_page(kept_zoo, "page", "<title>Page</title><html lang=en><p>findings")
    write_lineage(kept_zoo)
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for hash, ready in (
        ("view=studies", "iframe"),
        ("view=tree&recovered=lineage", ".node .wrong"),
    ):
        page.goto(f"{address}#{hash}")
        page.wait_for_selector(ready)
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SCREENSHOTS / f"phone-{hash[5:12]}-{scheme}.png")
    context.close()


@pytest.mark.slow
def test_a_site_has_studies_where_it_has_all_models(context, kept_zoo, tmp_path):
    write_page(kept_zoo, "page", "<title>Page</title><p>findings")
    write_lineage(kept_zoo)
    folder = tmp_path / "site"
    files = export(kept_zoo, "site", out=folder, **QUICK_SITE)
    assert {folder / "studies" / "page.html", folder / "api" / "lineages" / "lineage.json"} <= {
        *files
    }
    with files_served(tmp_path / "site") as address:
        page = context.new_page()
        problems = errors_of(page)
        page.goto(f"{address}#view=studies")
        frame = page.frame_locator("iframe")
        expect(frame.get_by_text("findings")).to_be_visible()
        assert frame.locator("body").evaluate("() => self.origin") == "null"
        expect(page.get_by_role("link")).to_have_count(0)  # only our server takes its rights away
        page.get_by_role("button", name="Tree").click()
        page.get_by_label("recovered parents").select_option("lineage")
        expect(page.get_by_text("parents right")).to_be_visible()
        assert problems == []
    part = tmp_path / "part"
    export(kept_zoo, "site", out=part, models=kept_zoo.ids()[:1], **QUICK_SITE)
    assert json.loads((part / "api" / "studies.json").read_text()) == {"pages": [], "lineages": []}
    assert not (part / "studies").exists()
    studies.json_path(kept_zoo.path, "lineage").write_text("{")
    with pytest.raises(CorruptFile, match=r"lineage\.json"):
        export(kept_zoo, "site", out=tmp_path / "corrupt", **QUICK_SITE)
