"""Training that goes wrong on purpose."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest


@pytest.fixture
def faulty(tiny, tmp_path, monkeypatch):
    """The tiny blueprint's first stage (or both), with a training that goes wrong in its worker."""
    monkeypatch.setenv("VITARIUM_PLUGINS", "faulty_plugins")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from vitarium.core import registry

    registry._load_outside.cache_clear()

    def make(*, children=False, **settings):
        values = deepcopy(tiny)
        if not children:
            del values["stages"]["finetune"]
        settings = {"name": "faulty", "tally": str(tmp_path / "tally"), **settings}
        values["stages"]["pretrain"]["variants"] = [
            {"objective": settings, "grid": {"seed": [1]}},
            {},
        ]
        return values

    yield make
    sys.modules.pop("faulty_plugins", None)
    registry._load_outside.cache_clear()
    registry._plugins["objective"].pop("faulty", None)
