"""Stages of models that are made up, of which it is known what explains what."""

import importlib
import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import needs
from vitarium.core import registry
from vitarium.core.config import Config
from vitarium.studies.statistics.factors import factors_of
from vitarium.studies.statistics.population import Population, Stage


def made_up(
    models: int, parents: int, *, seed: int = 0, epochs: int = 5, name: str = "finetune"
) -> Stage:
    """Models whose parent decides their weights, half of their predictions, and no accuracy.

    Their learning rate decides their accuracy. Half of the parents are contrastive.
    """
    random = np.random.default_rng(seed)
    ids = [f"{number:012x}" for number in random.permutation(models) + 0xABC00000]
    kinds = [f"{place + 10:02x}{place:010x}" for place in range(parents)]
    parent = {id: kinds[place % parents] for place, id in enumerate(ids)}
    rates = {id: [1e-3, 3e-3, 1e-2][place // parents % 3] for place, id in enumerate(ids)}
    heads = {id: ["linear", "mlp"][place // parents // 3 % 2] for place, id in enumerate(ids)}
    own = {id: {"optimizer.lr": rates[id], "head": heads[id]} for id in ids}
    theirs = {
        p: {"objective": ["supervised", "simclr"][i % 2], "seed": i} for i, p in enumerate(kinds)
    }
    factors = factors_of(own, parent, theirs)
    roots = {p: random.normal(size=60) for p in kinds}
    weights = np.array([roots[parent[id]] + 0.3 * random.normal(size=60) for id in ids])
    logits = np.array([roots[parent[id]] for id in ids]).reshape(models, 20, 3)
    classes = (logits + random.normal(size=logits.shape)).argmax(2)
    accuracy = np.array([0.7 + 20 * rates[id] + 0.01 * random.normal() for id in ids])
    order = sorted(ids, key=lambda id: (parent[id], rates[id], id))
    places = [ids.index(id) for id in order]
    weights, classes, accuracy = weights[places], classes[places], accuracy[places]
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    pairs = {
        "agreement": (classes[:, None] == classes[None]).mean(2),
        "cka": unit @ unit.T,
        "weight_l2": np.linalg.norm(weights[:, None] - weights[None], axis=2),
    }
    for matrix in pairs.values():
        np.fill_diagonal(matrix, np.nan)
    table = pd.DataFrame(
        {"parent": [parent[id] for id in order], "accuracy": accuracy}, index=order
    )
    values = {"accuracy": accuracy, "generalization_gap": 0.9 - accuracy}
    curve = [
        (id, epoch, float(accuracy[place] * (1 - np.exp(-epoch))))
        for place, id in enumerate(order)
        for epoch in range(epochs + 1)
    ]
    return Stage(
        name,
        table,
        "test accuracy",
        [type(f)(f.name, f.labels.reindex(order), f.alike) for f in factors],
        pd.DataFrame(curve, columns=["model", "epoch", "accuracy"]),
        pd.DataFrame(values, index=order),
        pd.DataFrame(weights[:, :10], index=order, columns=[f"blocks.{i}/mean" for i in range(10)]),
        pairs,
    )


@pytest.fixture(scope="session")
def stage() -> Stage:
    """24 models of four parents."""
    return made_up(24, 4)


@pytest.fixture(scope="session")
def population(stage: Stage) -> Population:
    return Population([stage], {})


@pytest.fixture(scope="session")
def forests() -> Any:
    """What makes up recovered forests: forests.py."""
    return importlib.import_module("studies.forests")


@pytest.fixture
def made_up_method(monkeypatch):
    """Lets the study find a made-up forest, whatever there is; returns what sets it."""
    plugin = registry.Plugin(
        "lineage", "made_up", lambda config, model_set, trees: None, Settings, {"paper": "Us 2026"}
    )
    registry.plugins("lineage")
    monkeypatch.setitem(registry._plugins["lineage"], "made_up", plugin)
    asked = {}

    def found(recovered):
        def recover(source, method, **settings):
            asked.update(settings, source=source, method=method)
            return recovered

        monkeypatch.setattr("vitarium.studies.lineage.study.recover", recover)
        return asked

    return found


class Settings(Config):
    """Of the made-up method."""

    weight: float = 0.5


@pytest.fixture
def screenshot(tmp_path):
    """Shows a page as a browser without a network does."""

    def shown(page: Path, *, dark: bool = False) -> Image.Image:
        browser = needs.browser()
        file = tmp_path / "page.png"
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=20000",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1200,6000",
            f"--user-data-dir={tmp_path / 'browser'}",
            f"--screenshot={file}",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            page.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")

    return shown
