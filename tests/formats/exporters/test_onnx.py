"""ONNX files: ONNX Runtime gives the zoo's outputs, for any batch."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from vitarium.architectures.bilinear import read_bilinear
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.formats.export import export
from vitarium.formats.exporters import onnx as onnx_file

VIT = {"name": "vit", "img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 24, "depth": 1}


def run(file, images):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    "recipe",
    [
        {
            "architecture": {**VIT, "class_token": False, "global_pool": "avg", "norm_eps": 1e-3},
            "head": {"name": "mlp", "hidden_dim": 5, "activation": "tanh"},
        },
        {"architecture": {**VIT, "name": "dinov2", "in_chans": 3, "depth": 2}},
    ],
    ids=["average and mlp head", "dinov2"],
)
def test_outputs_are_those_of_the_zoo_for_any_batch(lone, tmp_path, recipe):
    zoo = lone(**recipe)
    (file,) = export(zoo, "onnx", out=tmp_path / "out", opset=20)
    id = zoo.ids()[0]
    model, size = zoo.load(id), zoo.spec(id).recipe.architecture.config.input_size
    for count in (1, 2, 7):
        images = torch.randn(count, *size)
        with torch.no_grad():
            torch.testing.assert_close(run(file, images), model(images), atol=1e-4, rtol=0)
    found = onnx.load(file)
    assert [(opset.domain, opset.version) for opset in found.opset_import] == [("", 20)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [file.name]


class ReadsByRank(nn.Module):
    """Reads an image at points between its pixels, in a stable order of its values."""

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2)
        order = tokens[..., 0].sort(dim=1, descending=True, stable=True)
        points = order.indices.unsqueeze(-1) * images.new_tensor([0.07, 0.04])
        read = read_bilinear(tokens, (3, 4), points).flatten(1)
        return torch.cat([read, order.values, order.indices.to(read)], dim=1)


@pytest.mark.parametrize("opset", [18, 23])
def test_points_between_pixels_and_stable_orders_become_onnx(tmp_path, opset):
    model, images = ReadsByRank(), torch.randn(2, 2, 3, 4).round()  # many values are equal
    with onnx_file.quiet():
        onnx_file.write(model, images, tmp_path / "model.onnx", opset, {})
    assert onnx_file.largest_error(model, images, tmp_path / "model.onnx") < 1e-5


class Other:
    """An ONNX Runtime whose outputs are zeros."""

    def __init__(self, *arguments, **settings):
        pass

    def run(self, names, inputs):
        return [np.zeros((len(inputs["images"]), 10), dtype=np.float32)]


def test_the_file_says_what_it_is_and_nothing_of_this_machine(lone, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", Other)
    zoo = lone(architecture=VIT)
    model = f"{zoo.ids()[0]}@1"
    (file,) = export(zoo, "onnx", out=tmp_path / "out", models=[model], check=False)
    notes = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    assert (notes["id"], notes["epoch"], notes["stage"]) == (zoo.ids()[0], "1", "pretrain")
    assert json.loads(notes["classes"]) == list("0123456789")
    assert json.loads(notes["factors"])["optimizer.lr"] == 0.003
    assert b"site-packages" not in file.read_bytes()
    assert str(tmp_path).encode() not in file.read_bytes()


def test_a_file_that_runs_differently_is_not_written(lone, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", Other)
    zoo = lone(architecture=VIT)
    with pytest.raises(InvalidInput, match=rf"{zoo.ids()[0]}: the outputs of ONNX Runtime are up"):
        export(zoo, "onnx", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_torch_cannot_write_is_skipped_or_named_in_a_line(zoo, tmp_path, monkeypatch):
    """The library's own report is a page of advice, in colors."""
    ids, written = zoo.ids(), []

    def fail_once(model, images, file, opset, props):
        written.append(props["id"])
        file.write_bytes(b"a part of it")
        if props["id"] == ids[1]:
            cause = ValueError("\x1b[96mCannot view\x1b[0m a tensor\nOriginal traceback:\n...")
            raise RuntimeError("Failed to decompose.\n" * 147) from cause

    monkeypatch.setattr(onnx_file, "write", fail_once)
    with pytest.raises(InvalidInput, match="cannot be exported to onnx; leave them out") as error:
        export(zoo, "onnx", out=tmp_path / "out", models=ids[:3], check=False)
    reason = "torch cannot write it as ONNX: Cannot view a tensor"
    assert str(error.value).splitlines()[1:] == [f"  {ids[1]}: {reason}"]
    assert not (tmp_path / "out").exists()
    skipped = []
    files = export(
        *(zoo, "onnx"),
        out=tmp_path / "out",
        models=ids[:3],
        check=False,
        skip=True,
        listener=skipped.append,
    )
    assert [(event.checkpoint.model, event.reason) for event in skipped] == [(ids[1], reason)]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(files)
    assert len(files) == 2
    with pytest.raises(InvalidInput, match="1 of 1 models cannot be exported"):
        export(zoo, "onnx", out=tmp_path / "none", models=ids[1:2], check=False, skip=True)
    assert not (tmp_path / "none").exists()


def test_weights_that_no_file_can_hold_lie_beside_it(lone, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_LARGEST", 100)
    zoo = lone(architecture=VIT)
    (file,) = export(zoo, "onnx", out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {file.name, f"{file.name}.data"}
    images = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(
        run(file, images), zoo.load(zoo.ids()[0])(images).detach(), atol=1e-4, rtol=0
    )


def test_an_opset_that_cannot_be_written_is_refused(zoo, tmp_path):
    with pytest.raises(InvalidConfig, match="opset: 7 is not"):
        export(zoo, "onnx", out=tmp_path / "out", opset=7)
