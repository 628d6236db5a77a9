"""The benchmark of multiplexed models runs what it compares in turns, and takes medians."""

import importlib

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def benchmark():
    return importlib.import_module("multiplexing")


class Named(nn.Module):
    """Says when it is run, and which gradients it finds."""

    def __init__(self, name, runs, device):
        super().__init__()
        self.name, self.runs = name, runs
        self.weight = nn.Parameter(torch.ones(1, device=device))

    def forward(self, images):
        self.runs.append((self.name, self.weight.grad))
        return images * self.weight


def test_models_run_in_turns_and_the_first_round_does_not_count(benchmark, monkeypatch):
    # three readings to a run, in the order of the runs: round 0 of a and b, round 1 of both, ...
    spans = [(90, 99), (90, 99), (1, 10), (2, 20), (3, 12), (2, 20), (2, 11), (8, 80)]
    readings = iter([1000 * run + at for run, each in enumerate(spans) for at in (0, *each)])
    monkeypatch.setattr(benchmark, "clock", lambda: next(readings))
    runs = []
    models = {name: Named(name, runs, benchmark.DEVICE) for name in "ab"}
    found = benchmark.timed(models, torch.ones(2, device=benchmark.DEVICE), rounds=3)
    assert runs == [("a", None), ("b", None)] * 4
    assert found == {"a": {"forward": 2, "both": 11}, "b": {"forward": 2, "both": 20}}


def test_one_transformation_is_left_out_at_a_time(benchmark):
    names = {
        name: {
            part.split(".")[3]
            for part, _ in benchmark.mini("small", 32, **left).named_parameters()
            if part.startswith("blocks.0.attn.")
        }
        for name, left in benchmark.LEFT_OUT.items()
    }
    assert list(names.values()) == [
        {"before", "after", "positions"},
        {"after", "positions"},
        {"before", "positions"},
        {"before", "after"},
        set(),
    ]
