"""A real `vitarium grow`, killed at random moments and started again, gives the same bits."""

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import pytest

import vitarium
from forked_command import ForkedCommand
from vitarium import Blueprint
from vitarium.zoo.verify import verify

PLAIN = [
    "--workers",
    "2",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--no-compiled",
    "--stacked",
    "1",
]
"""Nothing is measured before it is trained."""

BLUEPRINT = {
    "name": "killed",
    "stages": {
        "pretrain": {
            "architecture": {
                "name": "vit",
                "img_size": 8,
                "patch_size": 2,
                "in_chans": 1,
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "drop_rate": 0.1,
            },
            "data": {"name": "digits"},
            "augmentation": {"name": "standard", "crop": "random", "padding": 1, "mixup": 0.5},
            "epochs": 4,
            "batch_size": 32,
            "grid": {"seed": [1, 2]},
        },
        "finetune": {
            "start": "pretrain",
            "data": {"name": "digits", "split_seed": 1},
            "optimizer": {"name": "sgd", "momentum": 0.9},
            "epochs": 2,
            "batch_size": 32,
        },
    },
}


def grow(blueprint: Path, zoo: Path) -> ForkedCommand:
    arguments = ["grow", str(blueprint), "--zoo", str(zoo), *PLAIN]
    return ForkedCommand(*arguments, messages=blueprint.parent / "messages")


def digests(zoo: Path) -> dict[str, str]:
    files = sorted((zoo / "models").glob("*/checkpoints/*"))
    return {str(f.relative_to(zoo)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def finished_epochs(zoo: Path) -> int:
    files = zoo.glob("models/*/epochs.jsonl")
    return sum(len(file.read_text().splitlines()) - 1 for file in files)  # the last is a checksum


def workers_of(zoo: Path) -> list[int]:
    """Processes that have the zoo's files or sockets: those whose command runs our worker."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode()
            environment = (entry / "environ").read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            continue
        if "vitarium.engine.worker" in command and f"VITARIUM_TEST={zoo}" in environment:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("most", [2, pytest.param(12, marks=pytest.mark.evidence)])
def test_a_zoo_killed_at_random_moments_has_the_bits_of_an_unbroken_one(
    tmp_path, monkeypatch, most
):
    blueprint = tmp_path / "killed.yaml"
    blueprint.write_text(json.dumps(BLUEPRINT))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setenv("VITARIUM_TEST", str(broken))
    plain = {"precision": "fp32", "compiled": False, "stacked": 1}
    vitarium.grow(Blueprint.read(BLUEPRINT), whole, workers=0, progress=False, **plain)

    moments = random.Random()
    kills, seen = 0, 0
    while kills < most:
        process = grow(blueprint, broken)
        # not before something new is on disk, so that every run is killed in mid-training
        while not process.has_ended() and finished_epochs(broken) <= seen:
            time.sleep(0.03)
        time.sleep(moments.uniform(0, 0.8))
        if process.has_ended():
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills, seen = kills + 1, finished_epochs(broken)
        deadline = time.monotonic() + 20
        while workers_of(broken) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers_of(broken) == [], "workers outlived their engine"
        assert verify(broken, deep=True) == []
    assert kills >= 2
    process = grow(blueprint, broken)
    assert process.wait() == 0, process.messages
    assert digests(broken) == digests(whole)
    assert len(digests(whole)) == 2 * 5 + 2 * 3
    assert not list(broken.rglob("*.tmp"))
    assert not (broken / "failures").exists()


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path):
    blueprint = tmp_path / "killed.yaml"
    blueprint.write_text(json.dumps(BLUEPRINT))
    process = grow(blueprint, tmp_path / "zoo")
    while finished_epochs(tmp_path / "zoo") < 3:
        assert not process.has_ended(), process.messages
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "run the same command to resume" in " ".join(process.messages.split())
    assert "Traceback" not in process.messages
