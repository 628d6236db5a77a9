"""A zoo that grows in another process, followed in a browser until it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from playwright.sync_api import expect

from explorer.test_accessibility import serious_violations
from vitarium.zoo import growth_status
from vitarium.zoo.growth_status import (
    EndedModel,
    GrowthStatus,
    Problem,
    StageStatus,
    TrainingModel,
)
from vitarium.zoo.lock import held

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def growing(zoo):
    """Of a zoo that is held: two models in training, one of them with epochs, and problems."""
    now, first = time.time(), next(model for model in zoo if model.children)
    of_first = {"model": first.id, "stage": "pretrain", "label": f"seed=1 {HOSTILE}"}
    of_second = {"model": "0" * 12, "stage": "pretrain", "label": "seed=2"}
    counts = {"finished": 3, "diverged": 1, "failed": 1, "training": 2, "epochs_done": 11.5}
    status = GrowthStatus(
        name="tiny",
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now - 90,
        beat=now,
        seconds_left=600.0,
        images_per_second=1234.0,
        workers=3,
        stages=[
            StageStatus(name="pretrain", models=10, epochs=20, **counts),
            StageStatus(name="finetune", models=90, epochs=90),
        ],
        in_training=2,
        training=[
            TrainingModel(**of_first, worker=0, since=now, phase="train", epoch=2, epochs=2),
            TrainingModel(**of_second, worker=2, since=now, epochs=2),
        ],
        problems=[
            Problem(**of_second, kind="retried", message="killed by SIGKILL", at=now - 40),
            Problem(**of_first, kind="diverged", message=f"the loss was nan {HOSTILE}", at=now),
        ],
        recent=[EndedModel(**of_first, at=now, seconds=75.0, metrics={"val_accuracy": 0.625})],
    )

    def write(**changes):
        beat = {"beat": time.time()}
        growth_status.write(zoo.path, status.model_copy(update={**beat, **changes}))

    with held(zoo.path):
        write()
        yield write


def test_the_banner_leads_to_all_that_is_known(page, growing, zoo):
    banner = page.locator(".banner")
    expect(banner).to_contain_text("Growing tiny: 4 of 100 models, 2 problems, about 10 min left")
    expect(page.locator("p[role=status]")).to_have_text("Growing tiny: 4 of 100 models, 2 problems")
    banner.get_by_role("button").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Growing tiny")
    expect(banner).to_have_count(0)  # the view says it all
    expect(page.locator(".facts")).to_contain_text("1,234 images / s")
    bars = page.get_by_role("progressbar", name="Stage")
    expect(bars).to_have_count(2)
    expect(bars.first).to_have_attribute("aria-valuenow", "4")
    workers = page.get_by_role("region", name="Workers")
    expect(workers).to_contain_text("Worker 1")
    expect(workers).to_contain_text("epoch 2 of 2")
    expect(workers).to_contain_text("setting up")
    expect(workers).to_contain_text("1 worker waits")
    curve = workers.get_by_role("img")  # of the model that has epochs
    expect(curve).to_have_accessible_name(re.compile(r"^accuracy by epoch, now val 0\.\d+$"))
    problems = page.get_by_role("region", name="Problems")
    assert problems.locator(".kind").all_inner_texts() == ["diverged", "retried"]
    expect(problems).to_contain_text(HOSTILE)
    assert serious_violations(page) == []
    assert page.locator("img[src='x']").count() == 0
    expect(page.get_by_role("region", name="Finished")).to_contain_text("0.625")
    problems.get_by_role("button").click()
    id = next(model.id for model in zoo if model.children)
    expect(page.get_by_role("heading", level=2)).to_contain_text(id)


def test_the_end_is_said_where_it_was_awaited(page, growing):
    expect(page.locator(".banner")).to_contain_text("Growing tiny")
    all_done = [StageStatus(name="pretrain", models=10, epochs=20, finished=10, epochs_done=20)]
    growing(state="finished", stages=all_done, training=[], in_training=0, started=time.time() - 60)
    expect(page.locator(".banner")).to_contain_text("Finished in 1 min", timeout=15_000)
    expect(page.locator("p[role=status]")).to_contain_text("10 of 10 models")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".banner")).to_have_count(0)
    page.reload()
    expect(page.locator("tbody .link").first).to_be_visible()
    expect(page.locator(".banner")).to_have_count(0)
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Finished: tiny")


def test_nothing_is_asked_for_again_and_again_where_nothing_grows(page):
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Nothing is growing here")
    requested_urls = []
    page.on("request", lambda request: requested_urls.append(request.url))
    with page.expect_response("**/api/zoo.json"):
        pass
    assert not [url for url in requested_urls if "live" in url]


def test_a_zoo_that_another_process_grows_is_followed_until_it_is_killed(
    page, zoo, tiny, write_blueprint
):
    stage = tiny["stages"]["pretrain"]
    stage["epochs"], stage["grid"] = 1000, {"seed": [11, 12]}
    blueprint = write_blueprint({"name": "endless", "stages": {"pretrain": stage}})
    page.get_by_role("button", name="Live").click()
    plain = ["--workers", "0", "--precision", "fp32", "--no-compiled", "--stacked", "1"]
    command = [sys.executable, "-m", "vitarium", "grow", str(blueprint), "--zoo", str(zoo.path)]
    with subprocess.Popen([*command, *plain], stderr=subprocess.DEVNULL) as process:
        try:
            expect(page.get_by_role("heading", level=2)).to_have_text(
                "Growing endless", timeout=60_000
            )
            expect(page.locator(".phase")).to_contain_text("of 1000", timeout=60_000)
            workers = page.get_by_role("region", name="Workers")
            expect(workers.get_by_role("img")).to_have_count(2, timeout=60_000)
            epoch = page.locator(".phase").inner_text()
            expect(page.locator(".phase")).not_to_have_text(epoch, timeout=60_000)
        finally:
            process.send_signal(signal.SIGKILL)
    expect(page.get_by_role("heading", level=2)).to_have_text(
        "Interrupted: endless", timeout=15_000
    )
    expect(page.locator("article")).to_contain_text("Its process ended without a word")
    expect(page.locator("pre")).to_contain_text(f"vitarium grow {blueprint} --zoo {zoo.path}")
