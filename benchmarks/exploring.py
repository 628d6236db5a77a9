"""Benchmark: how fast the explorer's page is, in Chromium, over a zoo of 10,000 models.

First paint is from opening the address until rows are on the screen; the rest is from the input
until the page has drawn. The server has been asked once before, as it is when a page is reloaded.
Of a zoo of a single ViT-S (224 pixels): first paint, and attention maps and rollout of 16 images,
of all blocks and heads, as the server computes them once it has imported torch.

    python benchmarks/exploring.py [--models 10000] [--zoo DIR]
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import listing
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from vitarium import Blueprint, Zoo, plan
from vitarium.zoo import About

ROUNDS = 5
TARGETS = {"first paint": 2000.0, "search": 100.0, "SQL condition": 100.0}
TARGETS |= {"sort": 100.0, "brush": 100.0}
"""Milliseconds; a lasso has frames per second instead, memory MB."""
VIT_S = {"name": "vit", "img_size": 224, "patch_size": 16, "in_chans": 1}
VIT_S |= {"embed_dim": 384, "depth": 12, "num_heads": 6}
OF_ONE_MODEL = {"first paint, one model": 1000.0, "attention, ViT-S": 2000.0}
"""Milliseconds."""
LASSO_TARGET, MEMORY_TARGET = 30.0, 400.0
WARM_UP_SECONDS = 15
FRAME = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--zoo", type=Path, help="keep the zoo there, or take that which is there")
    args = parser.parse_args()
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chromium = stack.enter_context(sync_playwright()).chromium
        browser = chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        folder = args.zoo or temporary / "zoo"
        if not folder.exists():
            listing.write_zoo(folder, args.models)
        with served(folder) as (address, server):
            measured = measure(page, address)
            status = Path(f"/proc/{server.pid}/status").read_text()
            measured["memory"] = int(status.partition("VmHWM:")[2].split()[0]) / 1000
        model = write_vit_s(temporary / "vit-s")
        with served(temporary / "vit-s") as (address, _):
            measured |= measure_model(page, address, model)
    return 0 if report(measured, args.models) else 1


@contextmanager
def served(zoo: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page's address, and the process of `vitarium explore`."""
    port = free_port()
    command = [sys.executable, "-m", "vitarium", "explore", str(zoo), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"http://127.0.0.1:{port}/", server
        finally:
            server.terminate()


def write_vit_s(folder: Path) -> str:
    """A zoo of one ViT-S that has not been trained, for digits in 224 pixels; the model's id."""
    stage = {"data": "digits", "architecture": VIT_S, "epochs": 1, "batch_size": 16}
    stage |= {"objective": "supervised", "optimizer": {"name": "sgd", "lr": 0.1}}
    blueprint = Blueprint.read({"name": "vit-s", "stages": {"pretrain": stage}})
    zoo = Zoo.create(folder)
    zoo.add_blueprint(blueprint)
    (spec,) = plan(blueprint).models
    model = zoo.folder(spec.id)
    model.begin(spec, About(10, tuple("0123456789"), {}))
    model.commit(0, {}, spec.recipe.build(10).state_dict(), None)
    model.finish("finished")
    return spec.id


def measure_model(page: Page, address: str, model: str) -> dict[str, float]:
    """Milliseconds of opening the page, and of attention maps (a new zoo's cache has none)."""
    wait_for(page, address)
    paint = statistics.median(timed(lambda: open_page(page, address)) for _ in range(ROUNDS))
    answer = f"{address}api/models/{model}/attention.json"
    page.goto(f"{address}api/models/{model}.json")  # the worker imports torch
    time.sleep(WARM_UP_SECONDS)
    response = [0.0]
    seconds = timed(lambda: response.append(page.goto(answer, timeout=120_000).status))
    if response[-1] != 200:
        raise SystemExit(f"{answer}: {page.content()}")
    return {"first paint, one model": paint, "attention, ViT-S": seconds}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def measure(page: Page, address: str) -> dict[str, float]:
    """Medians in milliseconds, frames per second of a lasso."""
    wait_for(page, address)
    rounds: dict[str, list[float]] = {name: [] for name in (*TARGETS, "lasso")}
    search = page.get_by_label("Search")
    for number in range(ROUNDS):
        rounds["first paint"].append(timed(lambda: open_page(page, address)))
        rounds["search"].append(drawn(page, lambda: search.fill("sgd")))
        search.fill("")
        rounds["SQL condition"].append(condition(page, f"after > 0.{70 + number}"))
        heading = page.locator("thead button").nth(3 + number % 3)
        rounds["sort"].append(drawn(page, heading.click))
        page.get_by_role("button", name="Map").click()
        page.wait_for_selector("canvas")
        rounds["lasso"].append(lasso(page))
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Factors").click()
        page.wait_for_selector("text.tick")
        rounds["brush"].append(brush(page))
        page.get_by_role("button", name="Clear", exact=True).click()
    return {name: statistics.median(times) for name, times in rounds.items()}


def wait_for(page: Page, address: str) -> None:
    """Until the server listens."""
    for _ in range(100):
        try:
            open_page(page, address)
            break
        except Exception:
            time.sleep(0.3)


def open_page(page: Page, address: str) -> None:
    page.goto("about:blank")
    page.goto(address, timeout=60_000)
    page.wait_for_selector("tbody .link", timeout=60_000)


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def drawn(page: Page, action) -> float:
    """Until the frame after an input, less what the same takes where nothing changes."""

    def whole() -> None:
        action()
        page.evaluate(FRAME)

    overhead = timed(lambda: (page.get_by_label("Search").focus(), page.evaluate(FRAME)))
    return max(0.0, timed(whole) - overhead)


def condition(page: Page, where: str) -> float:
    """Milliseconds until the models that fulfill it are listed, less what the same takes where
    they are already."""
    field, count = page.get_by_label("SQL condition"), page.locator("output")

    def entered() -> None:
        field.press("Enter")
        page.wait_for_selector("output:has-text(' of ')")

    field.fill(where)
    elapsed = timed(entered)
    elapsed -= timed(entered)  # the same condition: nothing is asked
    field.fill("")
    field.press("Enter")
    count.filter(has_not_text=" of ").wait_for()
    return elapsed


def lasso(page: Page) -> float:
    """Frames per second while a loop is drawn around all points."""
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 14)
    page.mouse.down()
    frames, start = 40, time.perf_counter()
    for number in range(frames):
        share = number / frames
        page.mouse.move(box["x"] + 60 + share * (box["width"] - 80), box["y"] + 14 + share * 400)
        page.evaluate(FRAME)
    rate = frames / (time.perf_counter() - start)
    page.mouse.move(box["x"] + 60, box["y"] + 400)
    page.mouse.up()
    return rate


def brush(page: Page) -> float:
    """Milliseconds of a step of a brush along the last axis."""
    box = page.locator(".map svg").bounding_box()
    title = page.locator("text.axis-title", has_text="after").bounding_box()
    x, steps = title["x"] + title["width"] / 2, 10
    page.mouse.move(x, box["y"] + 60)
    page.mouse.down()
    start = time.perf_counter()
    for number in range(steps):
        page.mouse.move(x, box["y"] + 90 + number * 20)
        page.evaluate(FRAME)
    elapsed = (time.perf_counter() - start) * 1000 / steps
    page.mouse.up()
    return elapsed


def report(measured: dict[str, float], models: int) -> bool:
    """Print a table and a JSON line; whether all targets are reached."""
    limits = {name: (f"≤ {limit:g} ms", measured[name] <= limit) for name, limit in TARGETS.items()}
    for name, limit in OF_ONE_MODEL.items():
        limits[name] = (f"≤ {limit:g} ms", measured[name] <= limit)
    limits["lasso"] = (f"≥ {LASSO_TARGET:g} / s", measured["lasso"] >= LASSO_TARGET)
    limits["memory"] = (f"≤ {MEMORY_TARGET:g} MB", measured["memory"] <= MEMORY_TARGET)
    table = Table("what", "measured", "target", "", title=f"explorer, {models:,} models")
    for name, (limit, is_reached) in limits.items():
        table.add_row(name, f"{measured[name]:.0f}", limit, "reached" if is_reached else "missed")
    Console().print(table)
    print(json.dumps({name: round(value, 1) for name, value in measured.items()}))
    return all(is_reached for _, is_reached in limits.values())


if __name__ == "__main__":
    sys.exit(main())
