"""A server over a small zoo: in this process, and for a browser on a port."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.testclient import TestClient

from needs import browser as browser_command
from vitarium import Zoo, measure, merge
from vitarium.explorer.app import create_app
from vitarium.explorer.security import CHANGE_HEADER, Access
from vitarium.explorer.serve import _listening

HOSTILE = "<img src=x onerror=alert(1)><b>bold</b>"
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture
def access() -> Access:
    return Access("127.0.0.1")


@pytest.fixture
def client(kept_zoo: Zoo, client_of: Any) -> TestClient:
    return client_of(kept_zoo)


@pytest.fixture
def client_of(access: Access) -> Any:
    """Of a zoo; its worker is ended when the client is left."""

    def opened(zoo: Zoo) -> TestClient:
        return TestClient(create_app(zoo, access), base_url="http://127.0.0.1:8000")

    return opened


@pytest.fixture
def change(client: TestClient, access: Access) -> Any:
    """POST with the page's own token; the answer's status and values."""

    def post(address: str, **values: Any) -> tuple[int, dict[str, Any]]:
        response = client.post(address, json=values, headers={CHANGE_HEADER: access.token})
        return response.status_code, response.json()

    return post


@pytest.fixture(scope="module")
def grown(_grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A zoo whose models can run; of all tests of a file, which do not change it."""
    return Zoo.open(shutil.copytree(_grown, tmp_path_factory.mktemp("grown") / "zoo"))


@contextmanager
def served(zoo: Zoo, access: Access) -> Iterator[str]:
    """The page's address, while a server answers there."""
    with _listening("127.0.0.1", 0) as listening:
        config = uvicorn.Config(create_app(zoo, access), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def files_served(folder: Path) -> Iterator[str]:
    """The address of any web server that gives files, as `python -m http.server` does."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def draw_around_all(page: Page) -> None:
    """With the lasso, all points of the map."""
    box = page.locator(".map canvas").bounding_box()
    assert box
    left, top = box["x"] + 58, box["y"] + 13
    right, bottom = box["x"] + box["width"] - 14, box["y"] + box["height"] - 45
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=browser_command(), args=["--no-sandbox"])


@pytest.fixture(scope="session")
def _shown(build_once: Callable[..., Path], _kept: Path) -> Path:
    """Two models, two children of each, a soup of two children, a hostile tag, measured numbers."""

    def build(folder: Path) -> None:
        zoo = Zoo.open(shutil.copytree(_kept, folder / "zoo"))
        parent = next(model for model in zoo if model.children)
        merge(zoo, "uniform_soup", models=parent.children)
        measure(zoo, "alpha")
        zoo.tag(parent.id, HOSTILE)
        zoo.models()  # the index is up to date

    return build_once("shown", build) / "zoo"


@pytest.fixture
def zoo(_shown: Path, tmp_path: Path) -> Zoo:
    """A copy, which a test may change; see `_shown`."""
    return Zoo.open(shutil.copytree(_shown, tmp_path / "zoo"))


@pytest.fixture
def address(zoo: Zoo) -> Iterator[str]:
    with served(zoo, Access("127.0.0.1")) as address:
        yield address


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened; nothing may be loaded from elsewhere, and no error logged.

    How it looks at the end is written to `SCREENSHOTS`, for people to look at.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    # a refused condition is shown by the page, and logged by the browser all the same
    page.on(
        "console", lambda m: m.type == "error" and "400" not in m.text and problems.append(m.text)
    )
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: r.url.startswith((address, "blob:")) or problems.append(r.url))
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_have_text("zoo")
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{request.node.name.removeprefix('test_')}.png")
    context.close()
    assert problems == []
