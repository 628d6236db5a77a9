"""Packing and unpacking a zoo: bit-exact, and nothing is lost wherever it is stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch

from vitarium import Blueprint, Zoo, merge, plan
from vitarium.core import files
from vitarium.core.errors import CorruptFile, DiskFull, ZooInUse
from vitarium.formats.weights import fingerprint
from vitarium.zoo.checkpoint import MAX_DEPTH
from vitarium.zoo.lock import held
from vitarium.zoo.verify import verify

HERE = Path(__file__).parent
FORMAT_1, FORMAT_2 = HERE / "format-1", HERE / "format-2"
PACKED_OUT_OF_ORDER = HERE / "packed-out-of-order"
"""Two pre-trained models, four fine-tuned from their epoch 3 and three soups, unpacked and packed by
a version that packed in order of id and wrote down how deep the bases were by then: 11 of its 26
checkpoints are deeper than they say. Beside it the fingerprints of what they hold."""


class Steps(list):
    """Notes each step of a progress."""

    def step(self, *step):
        self.append(step)


@pytest.fixture
def zoo(kept_zoo):
    return kept_zoo


OUTPUTS = [
    *(-0.263187, -0.271854, -0.298302, -0.182327, -0.492186),
    *(-0.26222, -0.330661, -0.045747, -0.043109, -0.434096),
]
"""Of the fine-tuned model of format-2, when it was written."""


def weights(zoo):
    return {
        (id, epoch.number, name): tensor.reshape(-1).view(torch.uint8).tolist()
        for id in zoo.ids()
        for epoch in zoo.folder(id).epochs()
        if epoch.checkpoint
        for name, tensor in zoo.state_dict(id, epoch.number).items()
    }


def suffixes(zoo):
    return {file.suffix for file in zoo.path.glob("models/*/checkpoints/*")}


def test_what_is_packed_and_unpacked_is_the_same(zoo):
    before, steps = weights(zoo), Steps()
    packed = {file: file.read_bytes() for file in zoo.path.rglob("*.packed")}
    done = zoo.unpack(progress=steps)
    assert suffixes(zoo) == {".safetensors"}
    assert weights(zoo) == before
    assert (done.checkpoints, done.converted) == (len(packed), len(packed))
    assert steps == [("checkpoints", k, len(packed)) for k in range(1, len(packed) + 1)]
    assert zoo.unpack().converted == 0
    done = zoo.pack()
    assert done.bytes_after < done.bytes_before
    assert weights(zoo) == before
    assert {file: file.read_bytes() for file in zoo.path.rglob("*.packed")} == packed
    assert suffixes(zoo) == {".packed"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("how", ["pack", "unpack"])
def test_killed_between_any_two_changes_of_the_disk_nothing_is_lost(zoo, how, monkeypatch):
    if how == "pack":
        zoo.unpack()
    kill_at_many_moments(zoo, [how], monkeypatch)


@pytest.mark.parametrize("then", ["pack", "unpack"])
def test_a_zoo_of_format_1_is_packed_whenever_that_is_killed(tmp_path, then, monkeypatch):
    zoo = Zoo.open(shutil.copytree(FORMAT_1, tmp_path / "zoo")).upgraded()
    kill_at_many_moments(zoo, ["pack", then], monkeypatch)


def kill_at_many_moments(zoo, commands, monkeypatch):
    """At each the first command is begun, killed, and the last one run instead."""
    how, then = commands[0], commands[-1]
    before = weights(zoo)
    start = zoo.path.rename(zoo.path.with_name("start"))
    moment = 0
    while True:
        shutil.rmtree(zoo.path, ignore_errors=True)
        shutil.copytree(start, zoo.path)
        with monkeypatch.context() as patch:
            changes = []

            def dying(do):
                def change(*args, **options):
                    if len(changes) == moment:  # noqa: B023 -- called in this round alone
                        raise Killed
                    changes.append(args)  # noqa: B023
                    return do(*args, **options)

                return change

            patch.setattr(os, "replace", dying(os.replace))
            patch.setattr(Path, "replace", dying(Path.replace))
            patch.setattr(files, "remove", dying(files.remove))
            try:
                getattr(zoo, how)()
            except Killed:
                pass
            else:
                break
        assert weights(zoo) == before
        assert verify(zoo.path) == []
        getattr(zoo, then)()
        assert weights(zoo) == before
        assert verify(zoo.path) == []
        assert len(suffixes(zoo)) == 1
        moment += 1 if moment < 6 else 7
    assert moment > 10


def test_a_corrupt_checkpoint_stays_where_it_is(zoo):
    zoo.unpack()
    path = zoo.folder(zoo.ids()[0]).checkpoints.path(0)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptFile, match=path.name):
        zoo.pack()
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("how", ["pack", "unpack"])
def test_a_corrupt_checkpoint_does_not_keep_the_others_as_they_are(zoo, how):
    zoo.unpack() if how == "pack" else None
    child = next(id for id in zoo.ids() if zoo.spec(id).parent)
    path = zoo.folder(child).checkpoints.path(1)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    before = suffixes(zoo)
    with pytest.raises(CorruptFile, match=path.name):
        getattr(zoo, how)()
    unconverted = [
        file for file in zoo.path.glob("models/*/checkpoints/*") if {file.suffix} == before
    ]
    assert unconverted == [path]


def fingerprints(zoo):
    return {
        f"{id}@{epoch.number}": fingerprint(zoo.state_dict(id, epoch.number))
        for id in zoo.ids()
        for epoch in zoo.folder(id).epochs()
    }


def chains(zoo):
    """Of each checkpoint, how many others it is read through, and how many it says that it is."""
    folders = map(zoo.folder, zoo.ids())
    files = [folder.open(e.number) for folder in folders for e in folder.epochs() if e.checkpoint]
    return [(file.depth, file.recorded_depth) for file in files]


def test_zoos_that_were_packed_out_of_order_are_whole_and_packed_anew(tmp_path):
    zoo = Zoo.open(shutil.copytree(PACKED_OUT_OF_ORDER, tmp_path / "zoo"))
    holds = json.loads(PACKED_OUT_OF_ORDER.with_suffix(".json").read_text())
    assert sum(depth != recorded for depth, recorded in chains(zoo)) == 11
    assert verify(zoo.path, deep=True) == []
    assert fingerprints(zoo) == holds
    assert zoo.pack().converted == 11
    assert all(depth == recorded <= MAX_DEPTH for depth, recorded in chains(zoo))
    assert verify(zoo.path, deep=True) == []
    assert fingerprints(zoo) == holds
    assert zoo.pack().converted == 0


def test_a_zoo_that_was_packed_out_of_order_is_unpacked(tmp_path):
    zoo = Zoo.open(shutil.copytree(PACKED_OUT_OF_ORDER, tmp_path / "zoo"))
    assert zoo.unpack().converted == 26
    assert verify(zoo.path, deep=True) == []
    assert fingerprints(zoo) == json.loads(PACKED_OUT_OF_ORDER.with_suffix(".json").read_text())


def test_what_was_written_on_plain_bases_is_packed_anew_once_these_are_packed(zoo):
    """Models that were merged into an unpacked zoo, one of the other."""
    zoo.unpack()
    models = [id for id in zoo.ids() if zoo.spec(id).parent][:2]
    for _ in range(2 * MAX_DEPTH):
        models = [merge(zoo, "uniform_soup", models=models).id, models[0]]
    before = weights(zoo)
    zoo.pack()
    assert weights(zoo) == before
    assert verify(zoo.path, deep=True) == []
    assert all(depth == recorded <= MAX_DEPTH for depth, recorded in chains(zoo))


def test_a_zoo_that_grows_is_not_converted(zoo):
    with held(zoo.path), pytest.raises(ZooInUse):
        zoo.unpack()


@pytest.fixture
def small_disk(disk):
    return disk("600k")


def commit_for_ever(folder, tensors):
    for epoch in count():
        folder.commit(epoch, {}, tensors, tensors)


def test_a_full_disk_loses_nothing_and_says_what_to_do(zoo, tiny, small_disk):
    shutil.copytree(zoo.path, small_disk / "zoo")
    full, before = Zoo.open(small_disk / "zoo"), weights(zoo)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - 30_000))
    with pytest.raises(DiskFull, match=r"no space left for .*make room and run the command again"):
        full.unpack()
    assert weights(full) == before
    assert verify(full.path) == []
    tiny["stages"]["pretrain"]["grid"] = {"seed": [9]}
    spec = plan(Blueprint.read(tiny)).models[0]
    folder, large = full.folder(spec.id), {"model/x": torch.rand(3000)}
    folder.begin(spec, full.folder(full.ids()[0]).about())
    with pytest.raises(DiskFull):
        commit_for_ever(folder, large)
    finished = len(folder.epochs())
    for epoch in range(finished):
        assert folder.weights(epoch)["model/x"].shape == (3000,)
    (small_disk / "ballast").unlink()
    folder.commit(finished, {}, large, large)
    full.unpack()
    assert weights(full).items() >= before.items()


def test_zoos_of_format_1_open_and_are_packed(tmp_path):
    zoo = Zoo.open(shutil.copytree(FORMAT_1, tmp_path / "zoo"))
    before = weights(zoo)
    assert len(before) > 50
    assert len(zoo.models()) == 2
    child = next(id for id in zoo.ids() if zoo.spec(id).parent)
    assert zoo.load(child)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert verify(zoo.path, deep=True) == []
    zoo.pack()
    assert weights(zoo) == before
    assert suffixes(zoo) == {".packed"}
    assert verify(zoo.path, deep=True) == []


def test_zoos_of_format_2_open(tmp_path):
    """A zoo of packed and plain checkpoints, with a soup and records, as it was first written."""
    zoo = Zoo.open(shutil.copytree(FORMAT_2, tmp_path / "zoo"))
    assert verify(zoo.path, deep=True) == []
    assert sorted(zoo.models()["stage"]) == ["finetune", "merge", "pretrain"]
    child = next(id for id in zoo.ids() if zoo.spec(id).parent)
    assert zoo.checkpoint(child, 1).is_packed is False
    assert zoo.checkpoint(child, 2).is_packed is True
    assert len(zoo.query("SELECT * FROM records")) > 0
    images = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    soup = next(id for id in zoo.ids() if zoo.spec(id).operator)
    found = zoo.load(child)(images)
    assert torch.allclose(found, torch.tensor([OUTPUTS]), atol=1e-5)
    both = [zoo.tensor(child, epoch, "head.bias").double() for epoch in (1, 2)]
    assert torch.allclose(zoo.tensor(soup, 0, "head.bias").double(), sum(both) / 2)


def test_a_damaged_checkpoint_of_format_1_is_found(tmp_path):
    zoo = Zoo.open(shutil.copytree(FORMAT_1, tmp_path / "zoo"))
    path = zoo.folder(zoo.ids()[0]).checkpoints.path(1)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptFile, match=path.name):
        zoo.state_dict(zoo.ids()[0], 1)
    assert [fault.path for fault in verify(zoo.path)] == [path.relative_to(zoo.path).as_posix()]


BACK_AND_FORTH = """
import sys
from vitarium import Zoo
zoo = Zoo.open(sys.argv[1])
print("ready", flush=True)
while True:
    zoo.unpack()
    zoo.pack()
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_nothing(zoo):
    before = weights(zoo)
    for delay in (0.01, 0.05, 0.13, 0.31, 0.77, 1.31):
        child = subprocess.Popen(
            [sys.executable, "-c", BACK_AND_FORTH, str(zoo.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert weights(zoo) == before
        assert verify(zoo.path, deep=True) == []


@pytest.mark.slow
def test_reading_goes_on_while_another_process_converts(zoo):
    before = weights(zoo)
    child = subprocess.Popen(
        [sys.executable, "-c", BACK_AND_FORTH, str(zoo.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        for _ in range(10):
            assert weights(zoo) == before
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
