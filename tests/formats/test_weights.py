"""Foreign weights are untrusted: what runs code, lies or leads elsewhere is refused and named."""

import argparse
import collections
import datetime
import enum
import json
import os
import pathlib
import pickle
import subprocess
import zipfile
from functools import partial

import numpy
import pytest
import torch
from safetensors.torch import save_file

from vitarium.core.errors import CorruptFile, InvalidInput, NotReadable, UntrustedFile
from vitarium.formats.weights import (
    read_shapes,
    read_state_dict,
    read_state_dict_shapes,
    read_weights,
)
from vitarium.lineage.files.weight_files import SafetensorsFile

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
        ({3: torch.ones(1)}, "key is 3, no name"),
        ({"a": torch.eye(2).to_sparse()}, "a is not a dense tensor"),
        (
            {"a": torch.ones(1, dtype=torch.complex64)},
            "a is of torch.complex64, which no checkpoint",
        ),
    ],
)
def test_what_holds_no_tensors_by_name_is_an_error(tmp_path, read, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidInput, match=rf"w\.pt.*{message}"):
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
    read = read_state_dict(tmp_path / "w.pth", tmp_path)
    assert all(torch.equal(read.values[name], weights[name]) for name in weights)
    assert read.architecture == "x"
    shapes = read_state_dict_shapes(tmp_path / "w.pth", tmp_path)
    assert shapes.values == {"a": (3, 2), "b": (4,)}


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


# Objects beside the weights


class Settings(dict):
    """As Lightning's AttributeDict: a dictionary with attributes."""


class Color(enum.Enum):
    RED = 1


BESIDE = {
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("out")),
    "path": pathlib.PurePosixPath("out"),
    "score": numpy.float64(0.9),
    "array": numpy.arange(3.0),
    "random state": numpy.random.default_rng(0).bit_generator.state,
    "settings": Settings(lr=0.1, path=pathlib.PurePosixPath("out")),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "date": datetime.datetime(2026, 1, 1),
    "enum": Color.RED,
    "function": os.path.join,
    "module": torch.nn.Linear(2, 2),
    "schedule": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 3),
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("mapped", [False, True])
def test_objects_beside_the_weights_are_skipped_and_import_nothing(tmp_path, what, kind, mapped):
    if (what, kind) == ("module", "legacy"):
        pytest.skip("the old format has a module's source code beside it, which torch refuses")
    weights = {"a": torch.randn(3, 2)}
    dumps({"state_dict": weights, "beside": BESIDE[what]}, tmp_path / "w.ckpt", kind)
    read = read_state_dict(tmp_path / "w.ckpt", tmp_path, mapped=mapped).values
    assert read.keys() == {"a"}
    assert torch.equal(read["a"], weights["a"])


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("function", [subprocess.getoutput, eval, exec, os.system, __import__])
def test_code_beside_the_weights_is_never_run(tmp_path, kind, function):
    mark = tmp_path / "run"

    class Beside:
        def __reduce__(self):
            code = f"open({str(mark)!r}, 'w')"
            return function, (code if function in (eval, exec) else f"touch {mark}",)

    content = {"x": Beside()} if kind == "pickle" else {"state_dict": {"a": torch.ones(1)}}
    dumps(content | {"x": Beside()}, tmp_path / "w.pth", kind)
    if kind == "pickle" or function is os.system:  # torch never allows the module os
        with pytest.raises(UntrustedFile, match="run code"):
            read_state_dict(tmp_path / "w.pth", tmp_path)
    else:
        assert read_state_dict(tmp_path / "w.pth", tmp_path).values.keys() == {"a"}
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_weights_in_an_object_of_an_unknown_class_are_refused_and_the_class_is_named(
    tmp_path, kind
):
    for content in (
        {"state_dict": {"a": numpy.ones(2)}},
        {"state_dict": {"a": torch.ones(2), "b": argparse.Namespace()}},
        argparse.Namespace(state_dict={"a": torch.ones(2)}),
    ):
        dumps(content, tmp_path / "w.pth", kind)
        with pytest.raises(
            UntrustedFile, match=r"run code: it names (numpy|argparse).*state_dict\(\)"
        ):
            read_state_dict(tmp_path / "w.pth", tmp_path)


def test_no_class_that_a_pickle_names_stays_allowed(tmp_path):
    before = torch.serialization.get_safe_globals()
    dumps(
        {"state_dict": {"a": torch.ones(1)}, "x": argparse.Namespace()}, tmp_path / "w.pth", "zip"
    )
    read_state_dict(tmp_path / "w.pth", tmp_path)
    assert torch.serialization.get_safe_globals() == before


def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "w.pt")
    with pytest.raises(UntrustedFile, match="TorchScript"):
        read_weights(tmp_path / "w.pt", tmp_path)


@READERS
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.safetensors.index.json"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path, read, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(InvalidInput, match=rf"{name} is a Git LFS pointer.*run `git lfs pull`"):
        read(tmp_path / name, tmp_path)


@READERS
def test_a_safetensors_file_without_metadata_and_one_with_null_are_read(tmp_path, read):
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = b'{"__metadata__":null,' + content[8 : 8 + length].strip()[1:]
    whole = len(header).to_bytes(8, "little") + header + content[8 + length :]
    (tmp_path / "null.safetensors").write_bytes(whole)
    assert read(tmp_path / "null.safetensors", tmp_path).keys() == {"a"}
    assert list(SafetensorsFile(tmp_path / "null.safetensors")) == ["a"]


@READERS
def test_a_dtype_that_cannot_be_stored_is_named_with_tensor_and_file(tmp_path, read):
    save_file({"a": torch.ones(2, dtype=torch.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput, match=r"w\.safetensors: a is of C64"):
        read(tmp_path / "w.safetensors", tmp_path)


# Shards


def sharded(folder, weights, kind="safetensors"):
    stem = "model" if kind == "safetensors" else "pytorch_model"
    table = {}
    for number, (name, tensor) in enumerate(weights.items(), 1):
        table[name] = f"{stem}-{number:05}-of-{len(weights):05}.{kind}"
        save = save_file if kind == "safetensors" else torch.save
        save({name: tensor}, folder / table[name])
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_one_model_by_their_index(tmp_path, kind):
    weights = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    index = sharded(tmp_path, weights, kind)
    read = read_state_dict(index, tmp_path).values
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert read_shapes(index, tmp_path) == {"a": (3, 2), "b": (4,)}


@READERS
def test_an_index_that_does_not_fit_its_shards_is_an_error(tmp_path, read):
    index = sharded(tmp_path, {"a": torch.ones(2), "b": torch.ones(1)})
    shard = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"other": torch.ones(1)}, shard)
    with pytest.raises(
        CorruptFile, match=r"00002.safetensors: it has no b, which .*index.json says"
    ):
        read(index, tmp_path)
    save_file({"b": torch.ones(1), "a": torch.zeros(2)}, shard)
    first = "model-00001-of-00002.safetensors"
    with pytest.raises(CorruptFile, match=f"00002.safetensors: it has a, and so has {first}"):
        read(index, tmp_path)
    shard.unlink()
    with pytest.raises(CorruptFile, match=r"00002.safetensors: the file is missing"):
        read(index, tmp_path)
    for table in ({}, [], {"weight_map": {"a": "../x.safetensors"}}, {"weight_map": {"a": 3}}):
        index.write_text(json.dumps(table))
        with pytest.raises(CorruptFile, match="weight_map"):
            read(index, tmp_path)


@pytest.mark.parametrize(
    "shard", ["a.index.json", "a.safetensors.index.json", "b\0", "../b", "b/c"]
)
def test_a_shard_is_a_file_beside_its_index_and_no_index_itself(tmp_path, shard):
    index = tmp_path / "a.safetensors.index.json"
    (tmp_path / "a.index.json").write_text("{}")
    index.write_text(json.dumps({"weight_map": {"x": shard}}))
    message = "the file is no|weight_map does not name files of this folder|no weights of PyTorch"
    for read in (read_weights, read_shapes):
        with pytest.raises(CorruptFile, match=message):
            read(index, tmp_path)


def test_a_tensor_of_the_name_of_the_header_is_refused(tmp_path):
    torch.save({"__metadata__": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(InvalidInput, match="called '__metadata__', which no checkpoint file can"):
        read_weights(tmp_path / "a.pt", tmp_path)
