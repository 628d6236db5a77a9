"""Plain files of anyone: which are models, what their tensors are called, and how little is read."""

import argparse
import json
import os
import pickle
import resource
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from vitarium.core.errors import CorruptFile
from vitarium.core.weight_suffixes import SUFFIXES
from vitarium.formats._names import NAMES, from_timm
from vitarium.formats._weight_files import find_weight_files
from vitarium.lineage.files.weight_files import FileWeights, load_folder
from vitarium.measures.weights._products import products

SHAPES = {"cls_token": (1, 1, 4), "blocks.0.attn.qkv.weight": (12, 4), "norm.weight": (4,)}


def weights(seed=0, shapes=SHAPES, dtype=torch.float32):
    noise = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=noise).to(dtype) for name, shape in shapes.items()}


def write(path, tensors, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, **options)


def equal(actual, expected):
    return actual.keys() == expected.keys() and all(actual[n].equal(expected[n]) for n in expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_rows_shapes_and_dtypes_are_the_files(tmp_path, suffix, dtype):
    expected = weights(dtype=dtype)
    write(tmp_path / f"a{suffix}", expected)
    loaded = load_folder(tmp_path)[0]["a"]
    assert equal(loaded, expected)
    assert loaded.shapes == SHAPES
    for name, tensor in expected.items():
        assert loaded.dtype(name) == dtype
        assert loaded.rows(name, 0, 1).equal(tensor[:1])
    assert loaded.rows("blocks.0.attn.qkv.weight", 5, 9).equal(
        expected["blocks.0.attn.qkv.weight"][5:9]
    )


def test_scalars_empty_tensors_and_whole_numbers_are_read_too(tmp_path):
    expected = {
        "scale": torch.tensor(3.0),
        "none": torch.empty(0, 3),
        "steps": torch.tensor([7], dtype=torch.int64),
        "mask": torch.tensor([True, False]),
    }
    write(tmp_path / "a.safetensors", expected)
    loaded = load_folder(tmp_path)[0]["a"]
    assert equal(loaded, expected)
    assert loaded.rows("none", 0, 0).shape == (0, 3)
    assert loaded.shapes == {"scale": (), "none": (0, 3)}


def test_models_are_named_by_their_place_and_hidden_files_are_none(tmp_path):
    for name in ("a.pt", "deep/b.safetensors", "deep/er/c.bin", ".hidden/x.pt", "deep/.y.pt"):
        write(tmp_path / name, weights())
    (tmp_path / "notes.txt").write_text("no model")
    assert list(load_folder(tmp_path)[0]) == ["a", "deep/b", "deep/er/c"]


def test_a_model_in_shards_is_one_model_and_rows_are_read_of_its_shards(tmp_path):
    expected, table = weights(), {}
    for number, (name, tensor) in enumerate(expected.items(), 1):
        table[name] = f"model-{number:05}-of-00003.safetensors"
        write(tmp_path / "m" / table[name], {name: tensor})
    index = tmp_path / "m" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    loaded, left_out, paths = load_folder(tmp_path)
    assert not left_out
    assert paths == {"m/model": index}
    assert equal(loaded["m/model"], expected)
    assert loaded["m/model"].shapes == SHAPES
    qkv = "blocks.0.attn.qkv.weight"
    assert loaded["m/model"].rows(qkv, 5, 9).equal(expected[qkv][5:9])
    (tmp_path / "m" / "model-00002-of-00003.safetensors").unlink()
    assert "00002-of-00003.safetensors: the file is missing" in load_folder(tmp_path)[1]["m/model"]


def test_files_of_unknown_kinds_are_named_and_documents_are_not(tmp_path):
    write(tmp_path / "a.pth.tar", weights())
    torch.save(weights(), tmp_path / "deep.weights")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04\0\0")
    (tmp_path / "checkpoints").write_bytes(b"\x80\x02}q\0.")
    for name in ("README.md", "LICENSE", "models.txt", "config.json", "train.py"):
        (tmp_path / name).write_text("ä text " * 1000)
    (tmp_path / "figure.png").write_bytes(b"\x89PNG\0")
    (tmp_path / ".hidden.npz").write_bytes(b"\0")
    loaded, left_out, _ = load_folder(tmp_path)
    assert list(loaded) == ["a"]
    assert left_out.keys() == {"deep.weights", "b.npz", "checkpoints"}
    assert all("unknown kind" in reason and ".pth.tar" in reason for reason in left_out.values())


def test_pointers_of_git_lfs_are_named_whatever_they_are_called(tmp_path):
    for name in ("a.pth", "b.safetensors", "c.dat"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    loaded, left_out, _ = load_folder(tmp_path)
    assert not loaded
    assert "Git LFS pointer" in left_out["a"]
    assert "Git LFS pointer" in left_out["b"]
    assert "c.dat" in left_out


def test_a_file_of_two_models_is_left_out_with_the_way_to_choose_one(tmp_path):
    both = {f"{who}.{name}": t for who in ("student", "teacher") for name, t in weights().items()}
    write(tmp_path / "a.safetensors", both)
    assert "prefix='teacher'" in load_folder(tmp_path)[1]["a"]


def test_what_training_programs_keep_beside_the_weights_is_skipped(tmp_path):
    beside = {"args": argparse.Namespace(out=Path("out")), "best": numpy.float64(1), "epoch": 3}
    write(tmp_path / "a.ckpt", {"state_dict": weights(), "state_dict_ema": weights(1), **beside})
    write(tmp_path / "b.pth", {"model_ema": weights(1), **beside})
    loaded, left_out, _ = load_folder(tmp_path)
    assert not left_out
    assert equal(loaded["a"], weights())
    assert equal(loaded["b"], weights(1))


def test_equal_names_keep_their_suffixes(tmp_path):
    for name in ("a.pt", "a.safetensors", "b.pt"):
        write(tmp_path / name, weights())
    assert list(load_folder(tmp_path)[0]) == ["a.pt", "a.safetensors", "b"]


def test_names_that_nothing_could_show_are_written_out(tmp_path):
    write(tmp_path / "a\nb.pt", weights())
    write(tmp_path / os.fsdecode(b"c\xff.pt"), weights())
    assert list(find_weight_files(tmp_path)[0]) == ["a\\nb", "c\\xff"]


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "vit.", "_orig_mod.module.", "module.backbone.encoder."]
)
def test_what_a_model_was_wrapped_in_is_no_part_of_names(tmp_path, prefix):
    expected = weights() | {"head.weight": torch.ones(3, 4)}
    write(tmp_path / "all.pt", {prefix + name: tensor for name, tensor in expected.items()})
    write(
        tmp_path / "trunk.pt",
        {name if "head" in name else prefix + name: tensor for name, tensor in expected.items()},
    )
    loaded = load_folder(tmp_path)[0]
    assert equal(loaded["all"], expected)
    assert equal(loaded["trunk"], expected)


def test_a_prefix_that_is_no_wrapper_stays(tmp_path):
    expected = {"blocks.0.weight": torch.ones(2), "blocks.1.weight": torch.ones(2)}
    write(tmp_path / "a.pt", expected)
    assert equal(load_folder(tmp_path)[0]["a"], expected)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_training_checkpoints_are_taken_out_of_their_wrapping(tmp_path, key):
    write(tmp_path / "a.pt", {"epoch": 3, key: weights(), "optimizer": {"lr": 0.1}})
    assert equal(load_folder(tmp_path)[0]["a"], weights())


def test_hugging_faces_names_and_split_queries_become_timms(tmp_path):
    import timm

    timms = timm.create_model("test_vit", num_classes=3).state_dict()
    hugging_face = {n: t.clone() for n, t in from_timm(timms, NAMES, "vit.").items()}
    assert "vit.encoder.layer.0.attention.attention.query.weight" in hugging_face
    for suffix in (".safetensors", ".bin"):
        write(tmp_path / f"{suffix[1:]}/model{suffix}", hugging_face)
    loaded, _, _ = load_folder(tmp_path)
    for model in loaded.values():
        assert equal(model, timms)
        assert model.shapes == {name: tuple(t.shape) for name, t in timms.items()}
        qkv = "blocks.0.attn.qkv.weight"
        assert model.rows(qkv, 60, 70).equal(timms[qkv][60:70])
        assert model.dtype(qkv) == torch.float32


def test_what_is_no_model_is_left_out_with_the_reason_and_the_rest_is_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write(tmp_path / "good.pt", weights())
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    write(tmp_path / "cut.pt", weights())
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.bin").write_bytes(b"")
    write(tmp_path / "optimizer.pt", {"state": {0: {"exp_avg": torch.ones(2)}}, "lr": 0.1})
    write(tmp_path / "model-00001-of-00002.safetensors", weights())
    loaded, left_out, _ = load_folder(tmp_path)
    assert list(loaded) == ["good"]
    assert not (tmp_path / "ran").exists()
    for name, reason in {
        "evil": "evil.pt was not read: reading it would run code",
        "cut.pt": "corrupt file .*cut.pt",
        "cut.safetensors": "corrupt file .*cut.safetensors",
        "empty": "corrupt file .*empty.bin",
        "optimizer": "'state' is a dict, not a tensor",
        "model-00001-of-00002": "a shard.*the index that names all parts is missing",
    }.items():
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(left_out.pop(name))
    assert not left_out


def test_parts_that_do_not_fit_into_one_tensor_are_an_error_that_names_the_file(tmp_path):
    prefix = "encoder.layer.0.attention.attention"
    tensors = {f"{prefix}.{part}.weight": torch.ones(4, 4) for part in ("query", "key")}
    tensors[f"{prefix}.value.weight"] = torch.ones(4, 5)
    tensors["embeddings.patch_embeddings.projection.weight"] = torch.ones(4, 1, 2, 2)
    write(tmp_path / "a.pt", tensors)
    assert "a.pt" in load_folder(tmp_path)[1]["a"]
    assert "cannot be one tensor" in load_folder(tmp_path)[1]["a"]


def test_a_file_that_shrinks_or_goes_after_it_was_opened_is_an_error(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, weights())
    loaded = load_folder(tmp_path)[0]["a"]
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(CorruptFile, match=r"a.safetensors: it has become shorter"):
        list(loaded.values())
    path.unlink()
    with pytest.raises(CorruptFile, match=r"a.safetensors: cannot be read any more"):
        list(loaded.values())


def test_files_hold_no_descriptors_so_that_thousands_can_be_open_at_once(tmp_path):
    for number in range(60):
        for suffix in (".pt", ".safetensors"):
            write(tmp_path / f"{number}{suffix}", weights(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, hard))
    try:
        loaded, left_out, _ = load_folder(tmp_path)
        grams = products(list(loaded.values())).tensors
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(loaded) == 120
    assert not left_out
    assert torch.stack(list(grams.values())).isfinite().all()


def test_only_the_rows_that_are_asked_for_are_read(tmp_path):
    write(tmp_path / "a.safetensors", {"w": torch.arange(12.0).reshape(6, 2)})
    loaded = load_folder(tmp_path)[0]["a"]
    assert isinstance(loaded, FileWeights)
    os.truncate(tmp_path / "a.safetensors", (tmp_path / "a.safetensors").stat().st_size - 8)
    assert loaded.rows("w", 1, 3).tolist() == [[2, 3], [4, 5]]
    with pytest.raises(CorruptFile):
        loaded["w"]
