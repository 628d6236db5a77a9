"""Foreign weights are untrusted: what runs code, lies or leads elsewhere is refused and named."""

import argparse
import os
import pickle
import zipfile
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from vitarium.core.errors import CorruptFile, NotReadable, UntrustedFile
from vitarium.formats.weights import read_shapes, read_weights

MAPPED = partial(read_weights, mapped=True)
READERS = pytest.mark.parametrize("read", [read_weights, MAPPED, read_shapes])


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def dumps(value, path, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")


@READERS
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_named_and_not_run(tmp_path, read, kind):
    file, mark = tmp_path / "checkpoints", tmp_path / "run"
    dumps({"a": Evil(mark)}, file, kind)
    with pytest.raises(UntrustedFile, match=r"checkpoints was not read: .*run code.*system"):
        read(file, tmp_path)
    assert not mark.exists()


@READERS
def test_a_pickled_module_is_refused(tmp_path, read):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(UntrustedFile, match="run code"):
        read(tmp_path / "m.pt", tmp_path)


@READERS
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello world", b"PK\x03\x04broken", b"\xff" * 64, b"\x80\x02" * 9]
)
def test_what_is_no_file_of_weights_is_an_error_that_names_it(tmp_path, read, suffix, content):
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises((CorruptFile, UntrustedFile), match=r"w[.]"):
        read(file, tmp_path)


@READERS
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_cut_file_is_corrupt(tmp_path, read, kind):
    file = tmp_path / "w.pt"
    dumps({"a": torch.randn(1000)}, file, kind)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(CorruptFile, match=r"w.pt"):
        read(file, tmp_path)


@READERS
def test_a_header_of_any_size_is_an_error(tmp_path, read):
    (tmp_path / "w.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CorruptFile, match=r"w.safetensors"):
        read(tmp_path / "w.safetensors", tmp_path)


@READERS
def test_a_packed_archive_is_refused(tmp_path, read):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for item in plain.infolist():
            bomb.writestr(item.filename, plain.read(item))
    with pytest.raises(UntrustedFile, match="compressed"):
        read(tmp_path / "bomb.pt", tmp_path)


@READERS
def test_a_view_that_claims_more_than_there_is_is_refused(tmp_path, read):
    torch.save({"a": torch.zeros(1).expand(10**13)}, tmp_path / "w.pt")
    with pytest.raises(CorruptFile, match="claims more"):
        read(tmp_path / "w.pt", tmp_path)


@READERS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "Tensor"),
        ({}, "dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({3: torch.ones(1)}, "3 is a Tensor"),
        ({"a": torch.eye(2).to_sparse()}, "not a dense tensor"),
    ],
)
def test_what_holds_no_tensors_by_name_is_an_error(tmp_path, read, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CorruptFile, match=message):
        read(tmp_path / "w.pt", tmp_path)


@READERS
def test_links_out_of_the_folder_and_missing_files_are_not_read(tmp_path, read):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    (inside / "w.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(UntrustedFile, match="leads out of"):
        read(inside / "w.safetensors", inside)
    with pytest.raises(CorruptFile, match="missing"):
        read(inside / "none.pt", inside)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_timms_training_checkpoints_are_read_out_of_their_wrapping(tmp_path, kind):
    weights = {"a": torch.randn(3, 2), "b": torch.ones(4, dtype=torch.bfloat16)}
    content = {"epoch": 3, "arch": "x", "state_dict": weights, "args": argparse.Namespace(lr=0.1)}
    dumps(content, tmp_path / "w.pth", kind)
    read = read_weights(tmp_path / "w.pth", tmp_path, wrapped_in=("state_dict",))
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    shapes = read_shapes(tmp_path / "w.pth", tmp_path, wrapped_in=("state_dict",))
    assert shapes == {"a": (3, 2), "b": (4,)}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_mapped_tensors_are_the_files_bits(tmp_path, kind):
    weights = {"a": torch.randn(3, 2), "b": torch.ones(4, dtype=torch.bfloat16)}
    dumps(weights, tmp_path / "w.pth", kind)
    read = read_weights(tmp_path / "w.pth", tmp_path, mapped=True)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


@pytest.mark.parametrize("kind", ["file.safetensors", "file.pt"])
@pytest.mark.parametrize("mapped", [False, True])
def test_files_are_read_whatever_their_folder_is_called(tmp_path, kind, mapped):
    folder = tmp_path / os.fsdecode(b"[a] \xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    weights = {"a": torch.rand(3, 4)}
    save = save_file if kind.endswith(".safetensors") else torch.save
    save(weights, tmp_path / kind)
    (tmp_path / kind).rename(folder / kind)
    found = read_weights(folder / kind, folder, mapped=mapped)
    assert torch.equal(found["a"], weights["a"])
    assert read_shapes(folder / kind, folder) == {"a": (3, 4)}


@READERS
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, read, monkeypatch):
    path = tmp_path / "file.pt"
    torch.save({"a": torch.rand(1)}, path)
    monkeypatch.setattr(os, "access", lambda path, right: right != os.R_OK)
    with pytest.raises(NotReadable, match=r"file\.pt"):
        read(path, tmp_path)
